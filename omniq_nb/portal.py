"""Calling coroutines from blocking code: the one loop thread of this process, and no thread at all.

Not here: what is called (`omniq_nb.sync`).
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Call(Generic[T]):
    """A coroutine that another thread waits for.

    `asyncio.run_coroutine_threadsafe` makes two futures and chains them, which takes as long as
    sending a small task to a server nearby.

    Attributes
    ----------
    over : lock
        Can be acquired once the coroutine has ended.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.over = threading.Lock()
        self.over.acquire()
        self._coroutine = coroutine

    def start(self) -> None:
        """Run it. On the loop."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """End it. On the loop, and after `start`."""
        self._task.cancel()

    def result(self) -> T:
        """Give what it returned, or raise what it raised. Only once."""
        __tracebackhide__ = True
        task = self._task
        # Else an exception would refer to this frame, and the frame to the exception.
        del self._task
        try:
            return task.result()
        finally:
            del task

    def _end(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            task.exception()  # who was interrupted does not ask for it any more
        self.over.release()


class LoopThread:
    """A daemon thread that runs an event loop. `shared()` gives the process's only one."""

    _shared: "LoopThread | None" = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="omniq loop", daemon=True)
        self._thread.start()

    @classmethod
    def shared(cls) -> "LoopThread":
        """The loop thread of this process. A forked child gets its own: threads do not survive."""
        with cls._lock:
            if cls._shared is None or cls._shared._pid != os.getpid():
                cls._shared = cls()
            return cls._shared

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it.

        An interrupt (Ctrl-C, the notebook's stop button) ends the waiting and cancels the
        coroutine, which is about waiting or about stores: it never ends a task.
        """
        __tracebackhide__ = True
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "this would wait for itself: code that runs on omniq's own event loop must use "
                "AsyncOmniQ, not OmniQ"
            )
        call = _Call(coroutine)
        self.loop.call_soon_threadsafe(call.start)
        try:
            call.over.acquire()
        except KeyboardInterrupt:
            self.loop.call_soon_threadsafe(call.cancel)
            raise
        return call.result()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine right here, in one step: for stores that are `immediate`.

    It saves the two thread switches of `LoopThread.call`, each as dear as a commit.
    """
    __tracebackhide__ = True
    # A notebook's cell runs inside the kernel's event loop; the coroutine must not see it, or
    # it would leave work to that loop and suspend.
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        asyncio._set_running_loop(running)
    coroutine.close()
    raise RuntimeError("a store that calls itself immediate suspended")
