"""What submitting gives back: a handle for one task, a batch for many.

Not here: the blocking faces (`omniq_nb.sync`), which share `value_of` and `error_of`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast, overload

from omniq_nb.codec import as_table
from omniq_nb.core.engine import Engine
from omniq_nb.core.outputs import News
from omniq_nb.display import notebook
from omniq_nb.errors import (
    ConfigError,
    NotSerializable,
    PayloadError,
    ResultExpired,
    StoreError,
    TaskCancelled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskTimeout,
    UnknownTask,
    WaitTimeout,
    WorkerLost,
)
from omniq_nb.liveness import unserved_words
from omniq_nb.models.result import Result
from omniq_nb.models.task import State, Task

if TYPE_CHECKING:
    import pandas as pd

    from omniq_nb.notebook.plots import Plot

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

HANDLE_STAYS = (
    "a handle or batch belongs to its client and cannot travel with a task: pass what it gives, "
    "result() or results(), or its id or name"
)

LOOKED_AT = 100
"""Tasks of a wait that was too long which are asked what they wait for."""

_BY_NAME: dict[str, type[TaskError]] = {
    kind.__name__: kind for kind in (TaskCancelled, TaskExpired, TaskTimeout, WorkerLost)
}


def error_of(engine: Engine, result: Result) -> BaseException | None:
    """The exception that stands for a task's outcome; None if it succeeded.

    The original one where it can be rebuilt, with the traceback of the worker as a note.
    """
    if result.state is State.SUCCEEDED:
        return None
    error: BaseException | None = None
    if result.payload:
        try:
            rebuilt = engine.codec.decode(result.payload, context=_context(result))
            error = rebuilt if isinstance(rebuilt, BaseException) else None
        except PayloadError:
            error = None  # TaskFailed below says what is known
    if error is None:
        text = result.error or f"the task is {result.state}"
        name, _, message = text.partition(": ")
        kind = _BY_NAME.get(name)
        error = kind(message) if kind else TaskFailed(text)
    if result.traceback:
        error.add_note(f"\nTask {result.name} ({result.task_id}), attempt {result.attempt}:")
        error.add_note(result.traceback)
    return error


def value_of(engine: Engine, result: Result) -> object:
    """The value of a task that succeeded.

    Raises
    ------
    BaseException
        What the task raised, or a `TaskError` that says why there is no value.
    """
    __tracebackhide__ = True
    error = error_of(engine, result)
    if error is not None:
        raise error
    if not result.payload:
        raise ResultExpired(
            f"task {result.task_id!r} succeeded, but its result is no longer stored "
            f"(see result_ttl and purge)"
        )
    return engine.codec.decode(result.payload, context=_context(result))


def _context(result: Result) -> str:
    return f"result:{result.task_id}:{result.token}"


async def wait_timeout(
    engine: Engine, what: str, timeout: float | None, ids: Sequence[str]
) -> WaitTimeout:
    """Waiting is over, and nothing else. If these tasks wait for a worker in vain, say so."""
    hint = ""
    with suppress(StoreError):  # the waiting is over all the same
        tasks = await engine.stores.task_queue.get(ids[:LOOKED_AT])
        queues = [task.queue for task in tasks if task is not None and task.state is State.QUEUED]
        if in_vain := await engine.unserved(queues):
            hint = f". Yet {unserved_words(in_vain)}"
    return WaitTimeout(
        f"{what} not done after {timeout:g} s; the work goes on, ask again whenever you like{hint}"
    )


async def _ended(
    engine: Engine, ids: Sequence[str], timeout: float | None, what: str
) -> dict[str, Result]:
    waiting = await engine.outcomes.wait(ids)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiting.done), timeout)
    except TimeoutError:
        raise await wait_timeout(engine, what, timeout, tuple(waiting.open)) from None
    finally:
        engine.outcomes.forget(waiting)


class AsyncHandle(Generic[T_co]):
    """One submitted task. Awaiting it gives its value.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    task_id : str
        Which task.
    """

    def __init__(self, engine: Engine, task_id: str) -> None:
        self._engine = engine
        self.id = task_id

    def __await__(self) -> Iterator[object]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> T_co:
        """Wait for the value.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the longest; without it, as long as it takes.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        BaseException
            What the function raised in its last attempt.
        TaskError
            There is neither value nor original exception: cancelled, expired, lost...
        WaitTimeout
            It is not done yet; it goes on.
        """
        __tracebackhide__ = True
        return cast(T_co, value_of(self._engine, await self._wait(timeout)))

    async def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it is over, and give what `result` would raise; None if it succeeded."""
        return error_of(self._engine, await self._wait(timeout))

    async def output(self, timeout: float | None = None, *, wait: bool = True) -> str:
        """What it printed and logged.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the longest until it is over.
        wait : bool
            False: do not wait, give what its attempt has printed so far. That is half a second
            old at the most while it runs.
        """
        if not wait:
            task = await self.info()
            if not task.state.final:
                running = task.state is State.RUNNING
                return await self._engine.outputs.so_far(task) if running else ""
        return (await self._wait(timeout)).output or ""

    async def follow(self, timeout: float | None = None) -> AsyncIterator[str]:
        """What it prints and logs, piece by piece as it comes, until it is over.

        Of a flood there are the newest 8,192 characters each half second, with a mark for the
        rest. A later attempt starts anew. What came of the task is not raised: ask `result`.

        Parameters
        ----------
        timeout : float, optional
            Seconds for all of it together.

        Raises
        ------
        WaitTimeout
            It is not over yet; it goes on.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[News] = asyncio.Queue()
        following = await self._engine.outputs.follow(self.id, lambda item: _put(loop, news, item))
        try:
            async with asyncio.timeout(timeout):
                over = False
                while not over:
                    item = await news.get()
                    over = isinstance(item, Result)
                    if text := following.text(item):
                        yield text
        except TimeoutError:
            what = f"task {self.id!r} is"
            raise await wait_timeout(self._engine, what, timeout, [self.id]) from None
        finally:
            self._engine.outputs.forget(following)

    async def info(self) -> Task:
        """The task as the queue knows it now: state, attempt, worker, times, error."""
        (task,) = await self._engine.stores.task_queue.get([self.id])
        if task is None:
            raise UnknownTask(f"no task {self.id!r} is known: it was purged, or never added")
        return task

    async def status(self) -> State:
        """Where it stands now."""
        return (await self.info()).state

    async def done(self) -> bool:
        """Whether it is over, whatever came of it."""
        return (await self.status()).final

    async def cancel(self) -> bool:
        """Cancel it, queued or running. False: it was over already.

        A running coroutine or process is ended; a running thread is told so, and what it
        still returns is thrown away.
        """
        return (await self._engine.cancel([self.id]))[0]

    async def requeue(self) -> bool:
        """Queue it again if it failed, expired or was cancelled. False: it did not."""
        return (await self._engine.requeue([self.id]))[0]

    async def _wait(self, timeout: float | None) -> Result:
        ended = await _ended(self._engine, [self.id], timeout, f"task {self.id!r} is")
        return ended[self.id]

    def __reduce__(self) -> str:
        raise NotSerializable(HANDLE_STAYS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class AsyncBatch(Generic[T_co]):
    """Many tasks of one function, in the order submitted.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    name : str
        What the batch is called: its value in the column `batch`.
    ids : sequence of str
        Its tasks, in order.
    """

    def __init__(self, engine: Engine, name: str, ids: Sequence[str]) -> None:
        self._engine = engine
        self.name = name
        self.ids = tuple(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[AsyncHandle[T_co]]:
        return (AsyncHandle(self._engine, task_id) for task_id in self.ids)

    def __getitem__(self, position: int) -> AsyncHandle[T_co]:
        return AsyncHandle(self._engine, self.ids[position])

    @overload
    async def results(
        self, timeout: float | None = None, *, errors: Literal["raise"] = "raise"
    ) -> list[T_co]: ...
    @overload
    async def results(
        self, timeout: float | None = None, *, errors: Literal["return"]
    ) -> list[T_co | BaseException]: ...
    async def results(
        self, timeout: float | None = None, *, errors: Literal["raise", "return"] = "raise"
    ) -> list[T_co] | list[T_co | BaseException]:
        """Wait for all, and give the values in the order submitted.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for all of them together.
        errors : {"raise", "return"}
            What to do about tasks without a value: raise the first one's exception, or put
            each exception in the value's place.

        Raises
        ------
        WaitTimeout
            Not all are done yet; they go on.
        """
        __tracebackhide__ = True
        return cast(list[T_co], values_of(self._engine, await self.wait(timeout), errors))

    async def wait(self, timeout: float | None = None) -> list[Result]:
        """Wait until all are over. What they came to, in the order submitted."""
        ended = await _ended(
            self._engine, self.ids, timeout, f"batch {self.name!r} ({len(self.ids)} tasks) is"
        )
        return [ended[task_id] for task_id in self.ids]

    async def as_completed(self, timeout: float | None = None) -> AsyncIterator[AsyncHandle[T_co]]:
        """The handles, each as soon as its task is over."""
        async for handle in as_completed(list(self), timeout):
            yield handle

    async def counts(self) -> dict[State, int]:
        """How many tasks are in which state now."""
        return count_states(await self._engine.stores.task_queue.get(self.ids))

    async def cancel(self) -> int:
        """Cancel all that are not over. How many that were."""
        return sum(await self._engine.cancel(self.ids))

    async def requeue(self) -> int:
        """Queue all that failed, expired or were cancelled again. How many that were."""
        return sum(await self._engine.requeue(self.ids))

    async def df(self, kind: str = "pandas") -> "pd.DataFrame":
        """One row per task: arguments, value, state, duration, error...

        Parameters
        ----------
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        """
        from omniq_nb.explore import to_frame

        table = await self._engine.explorer.batch_table(self.name)
        frame: pd.DataFrame = to_frame(table, kind)
        return frame

    async def frame(self, kind: str = "pandas", timeout: float | None = None) -> "pd.DataFrame":
        """The data frames that its tasks returned, as one: the union of their rows.

        Parameters
        ----------
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        timeout : float, optional
            Seconds to wait for all tasks.

        Raises
        ------
        ConfigError
            A task returned something else.
        """
        return await united(self._engine, await self.wait(timeout), kind)

    async def plot(self, kind: str = "durations", **columns: str) -> "Plot":
        """A plot of what its tasks took or gave.

        Parameters
        ----------
        kind : {"durations", "timeline", "throughput", "sweep"}
            Which plot; see `omniq_nb.plots`.
        **columns : str
            For ``"sweep"``: `value`, `x` and `y`.

        Raises
        ------
        ConfigError
            No such plot or column.
        """
        frame = await self.df()
        frame.attrs["batch"] = self.name
        drawn = asyncio.to_thread(notebook("plots").plot, frame, kind, **columns)
        return cast("Plot", await drawn)

    def __reduce__(self) -> str:
        raise NotSerializable(HANDLE_STAYS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self.ids)} tasks>"


def values_of(
    engine: Engine, results: Sequence[Result], errors: Literal["raise", "return"]
) -> list[object]:
    """Values in order, with exceptions raised or in their places."""
    __tracebackhide__ = True
    if errors == "raise":
        return [value_of(engine, result) for result in results]
    values: list[object] = []
    for result in results:
        error = error_of(engine, result)
        values.append(value_of(engine, result) if error is None else error)
    return values


async def united(engine: Engine, results: Sequence[Result], kind: str) -> "pd.DataFrame":
    """Make one frame of those that tasks returned: columns of the same name become one."""
    from omniq_nb.explore import to_frame
    from omniq_nb.explore.union import union_of

    def work() -> "pd.DataFrame":
        tables: list[object] = []
        for result in results:
            if result.state is not State.SUCCEEDED or not result.payload:
                value_of(engine, result)  # raises what the task raised, or that it is gone
            file = engine.codec.open_table(result.payload, context=_context(result))
            table = file if file is not None else as_table(value_of(engine, result))
            if table is None:
                what = f"{result.value_type or 'something else'} from task {result.task_id!r}"
                raise ConfigError("batch.frame()", what, "tasks that return data frames")
            tables.append(table)
        frame: pd.DataFrame = to_frame(union_of(tables), kind)
        return frame

    return await asyncio.to_thread(work)


def count_states(tasks: Sequence[Task | None]) -> dict[State, int]:
    """How many tasks are in which state; states without tasks are left out."""
    counts: dict[State, int] = {}
    for task in tasks:
        if task is not None:
            counts[task.state] = counts.get(task.state, 0) + 1
    return counts


async def as_completed(
    handles: Sequence[AsyncHandle[T]], timeout: float | None = None
) -> AsyncIterator[AsyncHandle[T]]:
    """The handles, each as soon as its task is over.

    Parameters
    ----------
    handles : sequence of AsyncHandle
        Of one client.
    timeout : float, optional
        Seconds for all of them together.

    Raises
    ------
    WaitTimeout
        Some are not done yet; they go on.
    """
    if not handles:
        return
    by_id = {handle.id: handle for handle in handles}
    engine = handles[0]._engine
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[str] = asyncio.Queue()
    waiting = await engine.outcomes.wait(by_id, lambda result: _put(loop, ended, result.task_id))
    waiting.done.add_done_callback(_pass_error_to(loop, ended))
    try:
        async with asyncio.timeout(timeout):
            for _ in by_id:
                task_id = await ended.get()
                if not task_id:
                    waiting.done.result()
                yield by_id[task_id]
    except TimeoutError:
        what = f"{len(waiting.open)} tasks are"
        raise await wait_timeout(engine, what, timeout, tuple(waiting.open)) from None
    finally:
        engine.outcomes.forget(waiting)


def _put(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[T], item: T) -> None:
    loop.call_soon_threadsafe(queue.put_nowait, item)


def _pass_error_to(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str]
) -> Callable[[Future[dict[str, Result]]], None]:
    def pass_on(done: Future[dict[str, Result]]) -> None:
        if done.cancelled() or done.exception() is not None:
            _put(loop, queue, "")

    return pass_on


async def gather(*handles: AsyncHandle[T], timeout: float | None = None) -> list[T]:
    """The values of all, in order; the first exception is raised, the others go on."""
    __tracebackhide__ = True
    if not handles:
        return []
    engine = handles[0]._engine
    ended = await _ended(engine, [h.id for h in handles], timeout, f"{len(handles)} tasks are")
    return [cast(T, value_of(engine, ended[handle.id])) for handle in handles]
