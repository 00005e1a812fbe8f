"""Attempts as coroutines of one thread of their own: many that wait, at no cost."""

import asyncio
import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, cast

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Fetch, no_bundles
from omniq_nb.core.capture import capturing
from omniq_nb.core.context import Progress, Reason
from omniq_nb.core.executors.base import Executor
from omniq_nb.core.executors.thread import ThreadExecutor
from omniq_nb.core.run import Attempt, Outcome
from omniq_nb.models.task import Task

MOST_THREADS = 32
"""The most plain functions that run at the same time."""

LEAVING = 2.0
"""Seconds for which `stop` waits until what is left has been cancelled."""


class AsyncExecutor(Executor):
    """Runs coroutines on an event loop of its own: one that blocks does not stall the engine's.

    Cancelling and timeouts end a coroutine by cancellation, so it can clean up. Plain
    functions, which would block all others, run in a `ThreadExecutor` beside it.
    """

    kind: ClassVar[str] = "async"

    def __init__(
        self,
        concurrency: int,
        codec: Codec,
        notify: Callable[[], None],
        prefer: str,
        fetch: Fetch = no_bundles,
    ) -> None:
        super().__init__(concurrency, codec, notify, prefer, fetch)
        threads = min(concurrency, MOST_THREADS)
        self._plain = ThreadExecutor(threads, codec, self._announce, prefer, fetch)
        self._plain_started = False
        self._thread = threading.Thread(target=self._serve, name="omniq async", daemon=True)
        self._stopping = asyncio.Event()
        self._active: dict[asyncio.Task[Outcome | None], Attempt] = {}
        self._fetched: set[str] = set()  # names of bundles

    def start(self) -> None:
        """Start the thread of the loop."""
        # With a factory the calling thread's current loop stays what it is.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread.start()

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue for execution."""
        with self._lock:
            for task in tasks:
                self._queued[task.id] = task
        self._loop.call_soon_threadsafe(self._pump)

    def take(self) -> tuple[list[Outcome], list[Progress]]:
        """Take what finished and what was reported, coroutines first."""
        outcomes, progress = super().take()
        plain_outcomes, plain_progress = self._plain.take()
        return outcomes + plain_outcomes, progress + plain_progress

    def printed(self) -> list[tuple[Task, int, str]]:
        """Take what coroutines and plain functions printed."""
        return super().printed() + self._plain.printed()

    def running(self) -> dict[str, float]:
        """List the coroutines and the plain functions under way."""
        return super().running() | self._plain.running()

    def backlog(self) -> int:
        """How many submitted tasks are not started."""
        return super().backlog() + self._plain.backlog()

    def withdraw(self) -> list[Task]:
        """Take back what is not started."""
        coroutines = super().withdraw()
        return self._plain.withdraw() + coroutines  # the handed-over were submitted earlier

    def cancel(self, task_id: str, reason: Reason) -> None:
        """Cancel a coroutine, or ask a plain function to end."""
        super().cancel(task_id, reason)
        self._plain.cancel(task_id, reason)

    def resize(self, concurrency: int) -> None:
        """Run this many coroutines at the same time."""
        self._concurrency = concurrency
        if self._plain_started:
            self._plain.resize(min(concurrency, MOST_THREADS))
        self._loop.call_soon_threadsafe(self._pump)

    def stop(self, timeout: float | None) -> list[Task]:
        """Wait for coroutines and functions; cancel the coroutines that are left."""
        deadline = None if timeout is None else time.monotonic() + timeout
        abandoned = self.withdraw()
        with self._lock:
            self._changed.wait_for(lambda: not self._running, timeout)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        abandoned += self._plain.stop(left)
        abandoned += self._abandon()
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(LEAVING)
        return abandoned

    # ---------------------------------------------------------------- on the loop's thread

    def _serve(self) -> None:
        # Closing the runner cancels what is left and waits for its clean-up.
        with capturing(), self._runner as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stopping.wait()

    def _pump(self) -> None:
        """Start what there is room for."""
        while len(self._active) < self._concurrency and (attempt := self._next()) is not None:
            running = self._loop.create_task(self._run(attempt))
            self._active[running] = attempt
            running.add_done_callback(self._done)
            attempt.interrupt = functools.partial(self._loop.call_soon_threadsafe, running.cancel)
            if attempt.reason is not None:
                running.cancel()  # asked a moment too early to be interrupted
            if attempt.task.timeout is not None:
                late = self._loop.call_later(attempt.task.timeout, self._late, running)
                running.add_done_callback(functools.partial(_cancel, late))

    def _next(self) -> Attempt | None:
        with self._lock:
            if not self._queued:
                return None
            attempt = self._attempt(self._queued.pop(next(iter(self._queued))))
            self._running.add(attempt)
            return attempt

    async def _run(self, attempt: Attempt) -> Outcome | None:
        """Make the attempt. None: it is a plain function's, and handed over."""
        try:
            if not self._fetched.issuperset(attempt.task.bundles):
                # Not on this loop, where others run; only what had to make way since is fetched
                # again on it.
                await asyncio.to_thread(lambda: [*map(attempt.fetch, attempt.task.bundles)])
                self._fetched.update(attempt.task.bundles)
            function, args, kwargs = attempt.enter()
            if not _is_async(function):
                return self._hand_over(attempt)
            awaitable = cast("Awaitable[object]", function(*args, **kwargs))
            return attempt.succeed(await awaitable)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: a task cannot end its worker.
            return attempt.fail(error)

    def _hand_over(self, attempt: Attempt) -> Outcome | None:
        if attempt.reason is not None:
            return attempt.fail(asyncio.CancelledError())
        if not self._plain_started:
            self._plain_started = True
            self._plain.resize(min(self._concurrency, MOST_THREADS))
        with self._lock:
            wanted = attempt in self._running
            self._running.discard(attempt)
        if wanted:
            self._plain.submit([attempt.task])
        return None

    def _done(self, running: asyncio.Task[Outcome | None]) -> None:
        attempt = self._active.pop(running, None)
        if attempt is not None:
            # Cancelled before its first step, it has no outcome of its own.
            cancelled = running.cancelled()
            outcome = attempt.fail(asyncio.CancelledError()) if cancelled else running.result()
            if outcome is not None:
                self._settle(attempt, outcome)
            self._pump()

    def _late(self, running: asyncio.Task[Outcome | None]) -> None:
        """Settle at once: the coroutine may take its time to clean up, or refuse to end."""
        if self._settle_late(self._active[running], ""):
            del self._active[running]
            self._pump()


def _is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine, as far as can be told beforehand."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )


def _cancel(late: asyncio.TimerHandle, _: object) -> None:
    late.cancel()
