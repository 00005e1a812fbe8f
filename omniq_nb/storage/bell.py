"""Waking tasks of any event loop from any thread: what in-process stores wait on."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Rung by whoever changes something; heard by every coroutine that listens at that moment.

    Ringing costs nothing while nobody listens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def ring(self) -> None:
        """Wake every listener. Safe from any thread."""
        if not self._listeners:
            return
        with self._lock:
            for heard, loop in self._listeners.items():
                if not heard.is_set() and not loop.is_closed():
                    loop.call_soon_threadsafe(heard.set)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """Listen from now on: look once more for what is awaited, then await the event."""
        heard = asyncio.Event()
        with self._lock:
            self._listeners[heard] = asyncio.get_running_loop()
        try:
            yield heard
        finally:
            with self._lock:
                del self._listeners[heard]
