"""Keeping open views up to date: one ticker for each client, on the client's own loop.

A view says how to ask (`gather`) and what to do with the answer (`show`). The ticker asks at a
bounded rate, never twice at once, spends a bounded share of the loop's time on it, and shows
only what is new. It never holds a view alive.

Not here: what the views ask (`omniq_nb.notebook.gauges`) and how they look.
"""

import asyncio
import contextvars
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeout
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from omniq_nb.errors import OmniQError, StoreClosed
from omniq_nb.sync import Batch, Handle, OmniQ, Workers, _Caller

if TYPE_CHECKING:
    from ipywidgets import Widget

Source = OmniQ | Batch[Any] | Handle[Any] | Workers | _Caller

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

EVERY = 0.5
"""Seconds between two looks at the same thing."""

AT_LEAST = 0.2
"""The shortest time between two looks, whatever a view wishes: 5 messages per second."""

SHARE = 0.1
"""The share of the time that one view may spend on asking."""

PATIENCE = 5.0
"""Seconds after which a view is asked again, however slow it was: a query's time is a thread's."""

LONGEST = 30.0
"""The longest pause after a store failed again and again."""

log = logging.getLogger("omniq_nb.notebook")


class Watch(Generic[T]):
    """One open view. `watch` makes it.

    Attributes
    ----------
    stopped : bool
        Whether it has ended, for whatever reason.
    """

    def __init__(
        self,
        gather: Callable[[], Awaitable[T]],
        show: Callable[[T], None],
        every: float,
        trouble: Callable[[OmniQError | None], None] | None,
        widget: "Widget | None",
    ) -> None:
        self._gather = _weakly(gather)
        self._show = _weakly(show)
        self._trouble = None if trouble is None else _weakly(trouble)
        self._widget = None if widget is None else weakref.ref(widget)
        self._every = max(every, AT_LEAST)
        self._shown: list[T] = []  # the last value, once there is one
        self._failures = 0
        # Reentrant: a view may stop its watch while it is shown something.
        self._lock = threading.RLock()
        self.stopped = False
        self.busy = False
        self.due = 0.0
        self.shown_at = 0.0

    def stop(self) -> None:
        """Look no more. When this returns, nothing is shown any more. Safe from any thread."""
        with self._lock:
            self.stopped = True

    @property
    def wanted(self) -> bool:
        """Whether there is still a view to show something to."""
        if self.stopped or self._gather() is None or self._show() is None:
            return False
        if self._widget is None:
            return True
        widget = self._widget()
        return widget is not None and widget.comm is not None

    async def look(self) -> None:
        """Ask once, and show the answer if it is new."""
        self.busy = True
        started = time.monotonic()
        try:
            pause = await self._look()
        except asyncio.CancelledError:
            self.stop()
            raise
        except Exception:
            log.exception("a view shows nothing new from now on, because of a defect")
            self.stop()
            pause = 0.0
        finally:
            self.busy = False
        now = time.monotonic()
        self.due = now + max(pause, min((now - started) / SHARE, PATIENCE))

    async def _look(self) -> float:
        gather = self._gather()
        if gather is None:
            return 0.0
        try:
            value = await gather()
        except StoreClosed:
            self.stop()
            return 0.0
        except OmniQError as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("a view waits for its store: %s", error)
                self._tell(self._trouble, error)
            return min(self._every * 2.0**self._failures, LONGEST)
        if self._failures:
            self._failures = 0
            self._tell(self._trouble, None)
        if self._shown != [value]:
            # A look out of turn (`refresh`) may come early: it is shown when its time has come.
            await asyncio.sleep(self.shown_at + AT_LEAST - time.monotonic())
            self._shown = [value]
            self.shown_at = time.monotonic()
            self._tell(self._show, value)
        return self._every

    def _tell(self, target: "Callable[[], Callable[[A], None] | None] | None", value: A) -> None:
        tell = None if target is None else target()
        with self._lock:
            if tell is not None and not self.stopped:
                tell(value)


class Ticker:
    """Looks after all open views of one client. Lives on the client's loop."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = weakref.ref(caller)
        self._watches: set[Watch[object]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    @property
    def open(self) -> int:
        """How many views are open."""
        return sum(watch.wanted for watch in list(self._watches))

    def add(self, watch: Watch[object]) -> None:
        """Look after this one, too. On the loop."""
        self._watches.add(watch)
        self._woken.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._tick(), name="omniq views")

    async def refresh(self) -> None:
        """Bring all views up to date now."""
        while self._looks:
            await asyncio.wait(self._looks)
        for watch in self._watches:
            if watch.wanted:
                self._start(watch)
        if self._looks:
            await asyncio.wait(self._looks)

    async def _tick(self) -> None:
        while self._tidy():
            self._woken.clear()
            now = time.monotonic()
            for watch in self._watches:
                if not watch.busy and watch.due <= now:
                    self._start(watch)
            waiting = [watch.due for watch in self._watches if not watch.busy]
            # Looks that end wake the ticker; a view that was dropped is noticed within EVERY.
            pause = min([EVERY, *(due - time.monotonic() for due in waiting)])
            try:
                await asyncio.wait_for(self._woken.wait(), max(pause, 0.0))
            except TimeoutError:
                continue

    def _tidy(self) -> bool:
        """Drop what nobody wants. Whether anything is left."""
        caller = self._caller()
        for watch in list(self._watches):
            if caller is None or caller.closed:
                watch.stop()
            if not watch.wanted:
                watch.stop()
                self._watches.discard(watch)
        return bool(self._watches)

    def _start(self, watch: Watch[object]) -> None:
        watch.busy = True
        task = asyncio.create_task(watch.look(), name="omniq view")
        self._looks.add(task)
        task.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looks.discard(task)
        self._woken.set()


_tickers: "weakref.WeakKeyDictionary[_Caller, Ticker]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


def watch(
    source: Source,
    gather: Callable[[], Awaitable[T]],
    show: Callable[[T], None],
    every: float = EVERY,
    *,
    trouble: Callable[[OmniQError | None], None] | None = None,
    widget: "Widget | None" = None,
) -> Watch[T]:
    """Keep a view up to date until it is gone, its widget or client is closed, or it is stopped.

    Bound methods are held weakly: their object is the view, and dropping it ends the watch. A
    plain function has no view to belong to and is looked after until `Watch.stop`.

    Parameters
    ----------
    source : OmniQ, Batch, Handle or Workers
        Of the client on whose loop it happens.
    gather : callable
        Asks for a value. Runs on the loop, never twice at once, so it must not block.
    show : callable
        Called on the loop's thread with each value that differs from the last one, at most
        five times a second. Sending messages to the page is fine there.
    every : float
        Seconds between two looks.
    trouble : callable, optional
        Called with the error when a store begins to fail, and with None when it is well again.
    widget : ipywidgets.Widget, optional
        What the view is shown by: closing it ends the watch.

    Returns
    -------
    Watch
        To stop it earlier.
    """
    made: Watch[T] = Watch(gather, show, every, trouble, widget)
    caller = _caller(source)
    # Not in the context of the cell that opens the view: what is sent later belongs to whichever
    # cell runs then. nbclient, which saves notebooks, ignores messages of any other cell.
    loop = caller.loop.loop
    loop.call_soon_threadsafe(_add, caller, made, context=contextvars.Context())
    return made


def _add(caller: _Caller, made: Watch[Any]) -> None:
    _ticker(caller).add(made)


def _ticker(caller: _Caller) -> Ticker:
    with _making:
        if caller not in _tickers:
            _tickers[caller] = Ticker(caller)
        return _tickers[caller]


def refresh(source: Source, timeout: float = 1.0) -> None:
    """Bring all open views of a client up to date, and wait for it, but not long.

    Parameters
    ----------
    source : OmniQ, Batch, Handle or Workers
        Whose views.
    timeout : float
        Seconds to wait at the longest.
    """
    caller = _caller(source)
    if caller not in _tickers or caller.closed:
        return
    looking = asyncio.run_coroutine_threadsafe(_tickers[caller].refresh(), caller.loop.loop)
    try:
        looking.result(timeout)
    except FutureTimeout:
        log.debug("views are still being brought up to date")


def open_views(source: Source) -> int:
    """How many views of this client are open."""
    caller = _caller(source)
    ticker = _tickers.get(caller)
    return 0 if ticker is None or caller.closed else ticker.open


def _caller(source: Source) -> _Caller:
    return source if isinstance(source, _Caller) else source._caller


def _weakly(function: Callable[[A], B] | Callable[[], B]) -> Callable[[], Callable[..., B] | None]:
    """A way to the function that does not keep the object alive that it is a method of."""
    if isinstance(function, MethodType):
        return weakref.WeakMethod(function)
    return lambda: function
