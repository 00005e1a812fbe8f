"""One attempt at one task, from the payload of its call to its outcome.

Not here: where and when it runs (`omniq_nb.core.executors`), and what follows from its outcome:
results, events, retries (`omniq_nb.core.worker`).
"""

import asyncio
import contextvars
import inspect
import math
import time
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self

import msgspec

from omniq_nb.codec import Codec, to_json, type_name
from omniq_nb.codec.bundles import Fetch, no_bundles
from omniq_nb.core.capture import (
    LIMIT,
    TRANSCRIPT,
    Look,
    Transcript,
    renew,
    shortened,
    storable,
)
from omniq_nb.core.context import CURRENT, REASONS, Progress, Reason
from omniq_nb.errors import PayloadError, TaskCancelled
from omniq_nb.models.task import State, Task

ERROR_LIMIT = 500
"""Characters of ``Outcome.error`` that are kept."""

LOOK_AFTER = 0.25
"""Seconds for which nobody looks at what an attempt prints: most are over by then."""

LOOK_SHARE, LOOK_LAST = 0.005, 5.0
"""The longer an attempt runs, the less often is looked: not again within this share of its time,
but within this many seconds."""


class Outcome(msgspec.Struct, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """How one attempt ended.

    Attributes
    ----------
    task : Task
        The very object that was submitted.
    to : State
        SUCCEEDED, FAILED or CANCELLED.
    started_at, finished_at : float
        Seconds since 1970 in UTC.
    payload : bytes
        The signed value or exception.
    value, value_type, error, traceback, output : str or None
        As in `omniq_nb.models.result.Result`.
    error_types : tuple of str
        The exception's type and its bases, most special first, as ``"module.QualName"``.
    released : bool
        It was never started: there is nothing to report, its task is to be given back.
    """

    task: Task
    to: State
    started_at: float
    finished_at: float
    payload: bytes = b""
    value: str | None = None
    value_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    output: str | None = None
    error_types: tuple[str, ...] = ()
    released: bool = False


class Attempt:
    """One attempt while it is under way.

    Parameters
    ----------
    task : Task
        As claimed.
    codec : Codec
        Opens the call and packs what comes of it.
    prefer : str
        How values are packed, where there is a choice.
    report : callable
        Is given what the task says of its progress.
    fetch : callable
        Gives the bundles that the call refers to.

    Attributes
    ----------
    deadline : float
        When its time is over, by ``time.monotonic()``.
    reason : str or None
        Why it is asked to end.
    interrupt : callable or None
        Ends it from any thread, where that can be done.
    over : bool
        Whether it has an outcome. Its function may go on all the same.
    printed : callable
        Gives what it printed from a position on.
    """

    __slots__ = (
        "_clock",
        "_codec",
        "_given",
        "_look_at",
        "_position",
        "_prefer",
        "deadline",
        "fetch",
        "interrupt",
        "over",
        "printed",
        "reason",
        "report",
        "started_at",
        "task",
        "transcript",
    )

    def __init__(
        self,
        task: Task,
        codec: Codec,
        prefer: str,
        report: Callable[[Progress], None],
        fetch: Fetch = no_bundles,
    ) -> None:
        self.task = task
        self.report = report
        self.fetch = fetch
        self.reason: Reason | None = None
        self.interrupt: Callable[[], object] | None = None
        self.over = False
        self.transcript = Transcript()
        self.printed: Callable[[int], Look] = self.transcript.since
        self.started_at = time.time()
        self._clock = time.monotonic()
        self._look_at = self._clock + LOOK_AFTER
        self._position = 0
        self._given = 0
        self.deadline = math.inf if task.timeout is None else self._clock + task.timeout
        self._codec = codec
        self._prefer = prefer

    def stop(self, reason: Reason) -> None:
        """Ask it to end, and interrupt it where that can be done. Only the first call counts."""
        if self.reason is None:
            self.reason = reason
            if self.interrupt is not None:
                self.interrupt()

    def look(self) -> tuple[int, str] | None:
        """Take what it printed since the last look, and after how many characters that was.

        None: nothing, or it is too early to look again.
        """
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + min(LOOK_SHARE * (now - self._clock), LOOK_LAST)
        look = self.printed(self._position)
        if not look.text:
            return None
        start = self._given + look.skipped
        self._position, self._given = look.position, start + len(look.text)
        return start, look.text

    def run(self, coroutines: "Coroutines") -> Outcome:
        """Make the attempt in this thread. Whatever the task raises is in the outcome."""
        return contextvars.copy_context().run(self._run, coroutines)

    def _run(self, coroutines: "Coroutines") -> Outcome:
        try:
            function, args, kwargs = self.enter()
            value = function(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = coroutines.run(value, self)
            return self.succeed(value)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: a task cannot end its worker.
            return self.fail(error)

    def enter(self) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        """Make this context the attempt's own and open the call."""
        CURRENT.set(self)
        TRANSCRIPT.set(self.transcript)
        renew()
        context = f"call:{self.task.id}"
        return self._codec.decode_call(self.task.call, context=context, fetch=self.fetch)

    def succeed(self, value: object) -> Outcome:
        """Make the outcome with this value.

        Raises
        ------
        NotSerializable
            The value cannot travel.
        """
        codec, finished_at = self._codec, self._now()
        return Outcome(
            task=self.task,
            to=State.SUCCEEDED,
            started_at=self.started_at,
            finished_at=finished_at,
            payload=codec.encode(value, context=self._result_context(), prefer=self._prefer),
            value=to_json(value),
            value_type=type_name(value),
            output=self.transcript.text(),
        )

    def fail(self, error: BaseException) -> Outcome:
        """Make the outcome with this exception: CANCELLED if that is how it heeded `stop`."""
        to = State.FAILED
        if self.reason is not None and isinstance(error, TaskCancelled | asyncio.CancelledError):
            to = State.CANCELLED
            error = TaskCancelled(REASONS[self.reason]).with_traceback(error.__traceback__)
        try:
            payload = self._codec.encode_exception(error, context=self._result_context())
        except PayloadError:
            payload = b""  # text and traceback must do
        return Outcome(
            task=self.task,
            to=to,
            started_at=self.started_at,
            finished_at=self._now(),
            payload=payload,
            value_type=_type_name(type(error)),
            error=describe(error),
            traceback=_traceback(error),
            output=self.transcript.text(),
            error_types=tuple(_type_name(kind) for kind in type(error).__mro__[:-1]),
        )

    def _now(self) -> float:
        """Tell the time by the clock that nobody sets, so that durations are right."""
        return self.started_at + (time.monotonic() - self._clock)

    def _result_context(self) -> str:
        return f"result:{self.task.id}:{self.task.token}"


class Coroutines:
    """Runs coroutines to their end in one thread, on one event loop that is made when needed."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def run(self, coroutine: Coroutine[object, object, object], attempt: Attempt) -> object:
        """Give the coroutine's value. ``attempt.stop`` cancels it."""
        if self._runner is None:
            # With a factory the thread's current loop stays what it is.
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        # The runner would use the context of its first use, which is another attempt's.
        context = contextvars.copy_context()
        return self._runner.run(self._guarded(coroutine, attempt), context=context)

    async def _guarded(
        self, coroutine: Coroutine[object, object, object], attempt: Attempt
    ) -> object:
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        assert main is not None
        attempt.interrupt = lambda: loop.call_soon_threadsafe(main.cancel)
        if attempt.reason is not None:
            main.cancel()  # asked a moment too early to be interrupted
        try:
            return await coroutine
        finally:
            attempt.interrupt = None
            # As asyncio.run does: what it left behind must not run on inside the next attempt.
            left = asyncio.all_tasks() - {main}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def describe(error: BaseException) -> str:
    """``"Type: message"``, in at most 500 characters."""
    try:
        message = str(error)
    except Exception as trouble:
        message = f"(its message cannot be shown: {type(trouble).__name__})"
    name = type(error).__name__
    return storable(f"{name}: {message}" if message else name)[:ERROR_LIMIT]


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _traceback(error: BaseException) -> str | None:
    """Format the traceback below our own frames and asyncio's. None: there is nothing below."""
    frames = error.__traceback__
    while frames is not None and _ours(frames):
        frames = frames.tb_next
    if frames is None:
        return None
    try:
        lines = traceback.format_exception(type(error), error, frames)
    except Exception as trouble:
        return f"(the traceback cannot be shown: {describe(trouble)})"
    text = storable("".join(lines))
    half = LIMIT // 2
    return text if len(text) <= LIMIT else shortened(text[:half], text[-half:], len(text) - LIMIT)


def _ours(frames: TracebackType) -> bool:
    module = frames.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] in ("omniq_nb", "asyncio")
