"""`OmniQ`: the blocking face of `AsyncOmniQ`, for scripts and notebook cells.

Every public method does what its twin of the same name does, in `omniq_nb.core`, whose
docstrings say the rest; a test compares the two. Works the same in a plain script, inside a
running event loop and in a notebook cell, because the engine has its own loop thread.
"""

import asyncio
import builtins
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timedelta
from importlib import import_module
from math import inf
from queue import Empty, SimpleQueue
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, cast, overload

from omniq_nb.config import OmniQConfig
from omniq_nb.config.builder import ConfigBuilder
from omniq_nb.core.checking import Check
from omniq_nb.core.client import CLIENT_STAYS, AsyncOmniQ, AsyncTable, Backend
from omniq_nb.core.engine import Engine
from omniq_nb.core.function import DecoratedFunction, P, R
from omniq_nb.core.handle import (
    HANDLE_STAYS,
    AsyncBatch,
    AsyncHandle,
    error_of,
    united,
    value_of,
    values_of,
    wait_timeout,
)
from omniq_nb.core.launch.base import WorkerOptions
from omniq_nb.core.options import Options, TaskOptions
from omniq_nb.core.outcomes import Waiting
from omniq_nb.core.outputs import News
from omniq_nb.core.schedules import AsyncSchedules
from omniq_nb.core.workers import STOP_TIMEOUT, AsyncWorkers, Launched
from omniq_nb.display import Shown, notebook, settled
from omniq_nb.display import waiting as shown_waiting
from omniq_nb.errors import NotSerializable
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule
from omniq_nb.models.task import State, Task, WorkerInfo
from omniq_nb.portal import LoopThread, drive

if TYPE_CHECKING:
    import pandas as pd

    from omniq_nb.notebook.panel.frame import Panel
    from omniq_nb.notebook.plots import Plot

SHOW_AFTER = 1.0
"""Seconds of waiting after which it is shown how far the tasks are."""

SHOW_EVERY = 0.1
"""Seconds between two changes of what is shown."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Caller:
    """How the blocking faces of one client call its coroutines."""

    def __init__(self, engine: Engine, loop: LoopThread) -> None:
        self.engine = engine
        self.loop = loop
        self.closed = False

    def stores(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """A coroutine that only talks to stores: right here, if the stores allow it."""
        __tracebackhide__ = True
        return drive(coroutine) if self.engine.immediate else self.loop.call(coroutine)

    def ended(
        self, ids: Sequence[str], timeout: float | None, what: str, name: str | None = None
    ) -> list[Result]:
        """Wait until these tasks are over; with a `name`, show how far they are."""
        __tracebackhide__ = True
        waiting = self.stores(self.engine.outcomes.wait(ids))
        first = timeout if name is None else min(SHOW_AFTER, inf if timeout is None else timeout)
        try:
            try:
                results = waiting.done.result(first)
            except FutureTimeout:
                if name is None or first == timeout:
                    raise
                left = None if timeout is None else timeout - SHOW_AFTER
                results = self._shown(waiting, ids, left, name)
        except FutureTimeout:
            ids = tuple(waiting.open)
            raise self.stores(wait_timeout(self.engine, what, timeout, ids)) from None
        except KeyboardInterrupt:
            left_alone = f"{len(waiting.open)} of {len(ids)} tasks go on" if name else "it goes on"
            sys.stderr.write(f"\nOnly the waiting was stopped: {left_alone}.\n")
            raise
        finally:
            self.engine.outcomes.forget(waiting)
        if name is not None:
            settled(self)
        return [results[task_id] for task_id in ids]

    def _shown(
        self, waiting: Waiting, ids: Sequence[str], timeout: float | None, name: str
    ) -> dict[str, Result]:
        """Go on waiting, and show it."""
        __tracebackhide__ = True
        deadline = inf if timeout is None else time.monotonic() + timeout
        with shown_waiting(self, ids, name) as tell:
            while True:
                left = deadline - time.monotonic()
                try:
                    results = waiting.done.result(min(SHOW_EVERY, max(0.0, left)))
                except FutureTimeout:
                    if left <= 0:
                        raise
                    tell(len(ids) - len(waiting.open))
                else:
                    tell(len(ids))
                    return results


class Handle(Shown, Generic[T_co]):
    """One submitted task. See `omniq_nb.core.handle.AsyncHandle`, its awaitable twin.

    In an event loop, ``await handle`` gives its value too.
    """

    def __init__(self, caller: _Caller, task_id: str) -> None:
        self._caller = caller
        self._async: AsyncHandle[T_co] = AsyncHandle(caller.engine, task_id)
        self.id = task_id

    def __await__(self) -> Generator[Any, None, T_co]:
        loop = self._caller.loop.loop
        future = asyncio.run_coroutine_threadsafe(self._async.result(), loop)
        return asyncio.wrap_future(future).__await__()

    def result(self, timeout: float | None = None) -> T_co:
        """Wait for the value; raise what the function raised.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the longest.

        Raises
        ------
        WaitTimeout
            It is not done yet; it goes on.
        """
        __tracebackhide__ = True
        return cast(T_co, value_of(self._caller.engine, self._wait(timeout)))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it is over, and give what `result` would raise; None if it succeeded."""
        return error_of(self._caller.engine, self._wait(timeout))

    def output(self, timeout: float | None = None, *, wait: bool = True) -> str:
        """What it printed and logged.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the longest until it is over.
        wait : bool
            False: do not wait, give what its attempt has printed so far. That is half a second
            old at the most while it runs.
        """
        __tracebackhide__ = True
        if not wait:
            return self._caller.loop.call(self._async.output(timeout, wait=False))
        return self._wait(timeout).output or ""

    def follow(self, timeout: float | None = None) -> Iterator[str]:
        """What it prints and logs, piece by piece as it comes, until it is over.

        Of a flood there are the newest 8,192 characters each half second, with a mark for the
        rest. A later attempt starts anew. What came of the task is not raised: ask `result`.

        Parameters
        ----------
        timeout : float, optional
            Seconds for all of it together.

        Examples
        --------
        ``for text in handle.follow(): print(text, end="")``
        """
        news: SimpleQueue[News] = SimpleQueue()
        outputs = self._caller.engine.outputs
        following = self._caller.loop.call(outputs.follow(self.id, news.put))
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            over = False
            while not over:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                item = news.get(timeout=left)
                over = isinstance(item, Result)
                if text := following.text(item):
                    yield text
        except Empty:
            late = wait_timeout(self._caller.engine, f"task {self.id!r} is", timeout, [self.id])
            raise self._caller.stores(late) from None
        finally:
            outputs.forget(following)

    def info(self) -> Task:
        """The task as the queue knows it now."""
        return self._caller.stores(self._async.info())

    def status(self) -> State:
        """Where it stands now."""
        return self._caller.stores(self._async.status())

    def done(self) -> bool:
        """Whether it is over, whatever came of it."""
        return self._caller.stores(self._async.done())

    def cancel(self) -> bool:
        """Cancel it, queued or running. False: it was over already."""
        return self._caller.loop.call(self._async.cancel())

    def requeue(self) -> bool:
        """Queue it again if it failed, expired or was cancelled. False: it did not."""
        return self._caller.loop.call(self._async.requeue())

    def _wait(self, timeout: float | None) -> Result:
        __tracebackhide__ = True
        return self._caller.ended([self.id], timeout, f"task {self.id!r} is")[0]

    def __reduce__(self) -> str:
        raise NotSerializable(HANDLE_STAYS)

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"


class Batch(Shown, Generic[T_co]):
    """Many tasks of one function. See `omniq_nb.core.handle.AsyncBatch`, its awaitable twin."""

    def __init__(self, caller: _Caller, twin: AsyncBatch[T_co]) -> None:
        self._caller = caller
        self._async = twin
        self.name = twin.name
        self.ids = twin.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Handle[T_co]]:
        return (Handle(self._caller, task_id) for task_id in self.ids)

    def __getitem__(self, position: int) -> Handle[T_co]:
        return Handle(self._caller, self.ids[position])

    @overload
    def results(
        self, timeout: float | None = None, *, errors: Literal["raise"] = "raise"
    ) -> list[T_co]: ...
    @overload
    def results(
        self, timeout: float | None = None, *, errors: Literal["return"]
    ) -> list[T_co | BaseException]: ...
    def results(
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
        """
        __tracebackhide__ = True
        return cast(list[T_co], values_of(self._caller.engine, self.wait(timeout), errors))

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Wait until all are over. What they came to, in the order submitted."""
        __tracebackhide__ = True
        what = f"batch {self.name!r} ({len(self.ids)} tasks) is"
        return self._caller.ended(self.ids, timeout, what, self.name)

    def as_completed(self, timeout: float | None = None) -> Iterator[Handle[T_co]]:
        """The handles, each as soon as its task is over."""
        return as_completed(list(self), timeout)

    def counts(self) -> dict[State, int]:
        """How many tasks are in which state now."""
        return self._caller.stores(self._async.counts())

    def cancel(self) -> int:
        """Cancel all that are not over. How many that were."""
        return self._caller.loop.call(self._async.cancel())

    def requeue(self) -> int:
        """Queue all that failed, expired or were cancelled again. How many that were."""
        return self._caller.loop.call(self._async.requeue())

    def df(self, kind: str = "pandas") -> "pd.DataFrame":
        """One row per task: arguments, value, state, duration, error..."""
        return self._caller.loop.call(self._async.df(kind))

    def frame(self, kind: str = "pandas", timeout: float | None = None) -> "pd.DataFrame":
        """The data frames that its tasks returned, as one: the union of their rows.

        Parameters
        ----------
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        timeout : float, optional
            Seconds to wait for all tasks.
        """
        results = self.wait(timeout)
        return self._caller.loop.call(united(self._caller.engine, results, kind))

    def plot(self, kind: str = "durations", **columns: str) -> "Plot":
        """A plot of what its tasks took or gave.

        Parameters
        ----------
        kind : {"durations", "timeline", "throughput", "sweep"}
            Which plot; see `omniq_nb.plots`.
        **columns : str
            For ``"sweep"``: `value`, `x` and `y`.
        """
        # Not on the loop: drawing takes its time.
        return cast("Plot", notebook("plots").plot(self, kind, **columns))

    def __reduce__(self) -> str:
        raise NotSerializable(HANDLE_STAYS)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in self.counts().items())
        return f"<Batch {self.name!r}: {len(self.ids)} tasks: {counts}>"


class TaskFunction(DecoratedFunction[P, R]):
    """A function decorated with ``@oq.task`` of an `OmniQ`. Calling it calls the function."""

    def __init__(self, client: "OmniQ", function: Callable[P, R], options: TaskOptions) -> None:
        super().__init__(function, options)
        self._client = client

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue one call. See ``OmniQ.submit``."""
        return self._client.submit(self, *args, **kwargs)

    def map(self, *columns: object, name: str | None = None, **axes: object) -> Batch[R]:
        """Enqueue many calls. See ``OmniQ.map``."""
        return self._client.map(self, *columns, name=name, **axes)

    def options(self, **options: Unpack[Options]) -> "TaskFunction[P, R]":
        """The same function, submitted with other options."""
        changed = self.task_options.updated(**options)
        return TaskFunction(self._client, self.__omniq_function__, changed)  # type: ignore[arg-type]


class Workers(Shown):
    """``oq.workers``. See `omniq_nb.core.workers.AsyncWorkers`, its awaitable twin."""

    def __init__(self, caller: _Caller, twin: AsyncWorkers) -> None:
        self._caller = caller
        self._async = twin

    @overload
    def start(
        self,
        n: int | None = None,
        kind: Literal["thread", "async", "process", "process-per-task"] | None = None,
        queues: str | Sequence[str] | None = None,
    ) -> WorkerInfo: ...
    @overload
    def start(
        self,
        n: int | None = None,
        *,
        kind: Launched,
        queues: str | Sequence[str] | None = None,
        **options: Unpack[WorkerOptions],
    ) -> builtins.list[WorkerInfo]: ...
    @overload
    def start(
        self,
        n: int | None = None,
        kind: str | None = None,
        queues: str | Sequence[str] | None = None,
        **options: Any,
    ) -> WorkerInfo | builtins.list[WorkerInfo]: ...
    def start(
        self,
        n: int | None = None,
        kind: str | None = None,
        queues: str | Sequence[str] | None = None,
        **options: Any,
    ) -> WorkerInfo | builtins.list[WorkerInfo]:
        """Have `n` tasks run at the same time. Doing it again only changes the number.

        Parameters
        ----------
        n : int, optional
            Tasks at the same time, or, of background workers, how many there shall be.
        kind : str, optional
            In this process: ``"thread"``, threads; ``"async"``, coroutines of one thread;
            ``"process"``, child processes, which alone use several cores for Python code and
            can be ended at any time; ``"process-per-task"``, a fresh one for each attempt.
            Outliving this process: ``"background"``, detached processes.
        queues : str or sequence of str, optional
            Which queues are asked, in this order.
        **options
            For background workers: `isolation`, `concurrency`, `idle_timeout`, `max_tasks`,
            `max_memory`; see `omniq_nb.core.launch.base.WorkerOptions`.
        """
        __tracebackhide__ = True
        return self._caller.loop.call(self._async.start(n, kind, queues, **options))

    def stop(
        self, kind: str | None = None, *, drain: bool = False, timeout: float | None = STOP_TIMEOUT
    ) -> None:
        """Stop the workers of this client; background ones only when their kind is named.

        Parameters
        ----------
        kind : str, optional
            Only these. ``"background"`` stops all background workers of this configuration on
            this machine, whoever started them; without a kind they work on.
        drain : bool
            First work until the queues are empty; otherwise only finish what runs.
        timeout : float or None
            Seconds, after which what still runs is given back to the queue.
        """
        __tracebackhide__ = True
        self._caller.loop.call(self._async.stop(kind, drain=drain, timeout=timeout))

    def scale(self, n: int, kind: str | None = None) -> None:
        """Change how many tasks each worker of this client runs at the same time.

        Parameters
        ----------
        n : int
            The new number.
        kind : str, optional
            Only these workers. Of background ones: how many there shall be.
        """
        __tracebackhide__ = True
        self._caller.loop.call(self._async.scale(n, kind))

    def list(self) -> builtins.list[WorkerInfo]:
        """All workers that ever sent a heartbeat to this queue, newest last.

        The `state` of one that died is ``"dead"``.
        """
        return self._caller.stores(self._async.list())


class Schedules:
    """``oq.schedules``. See `omniq_nb.core.schedules.AsyncSchedules`, its awaitable twin."""

    def __init__(self, caller: _Caller, twin: AsyncSchedules) -> None:
        self._caller = caller
        self._async = twin

    def add(
        self,
        id: str,
        function: Callable[..., object],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        cron: str | None = None,
        every: float | str | timedelta | None = None,
        at: datetime | str | float | None = None,
        timezone: str = "UTC",
        **options: Unpack[Options],
    ) -> Schedule:
        """Enqueue a call at each fire time. The same id again replaces the rule and the call.

        Parameters
        ----------
        id : str
            What the schedule is called.
        function : callable
            What to call, decorated or not.
        args, kwargs
            With what.
        cron : str
            Five fields, as in crontab, read in `timezone`: ``"30 7 * * mon-fri"``.
        every : seconds, timedelta or str
            An interval, counted from now: ``90``, ``"1h30m"``.
        at : datetime, str or float
            One moment; without a time zone it is read in `timezone`.
        timezone : str
            An IANA name: ``"Europe/Berlin"``.
        **options
            As for ``oq.task``.
        """
        __tracebackhide__ = True
        return self._caller.stores(
            self._async.add(
                id,
                function,
                args,
                kwargs,
                cron=cron,
                every=every,
                at=at,
                timezone=timezone,
                **options,
            )
        )

    def get(self, id: str) -> Schedule:
        """The schedule of that id."""
        return self._caller.stores(self._async.get(id))

    def next(self, id: str, n: int = 5) -> list[datetime]:
        """The next `n` fire times, or fewer if there are fewer, in UTC."""
        return self._caller.stores(self._async.next(id, n))

    def pause(self, id: str) -> None:
        """Let it not fire until it is resumed."""
        self._caller.stores(self._async.pause(id))

    def resume(self, id: str) -> None:
        """Let it fire again, from now on."""
        self._caller.stores(self._async.resume(id))

    def trigger(self, id: str) -> Handle[object]:
        """Enqueue its task now, besides its fire times."""
        return Handle(self._caller, self._caller.stores(self._async.trigger(id)).id)

    def remove(self, id: str) -> bool:
        """Delete it; tasks that it has enqueued stay. False: unknown."""
        return self._caller.stores(self._async.remove(id))

    def list(self) -> list[Schedule]:
        """All schedules, by id."""
        return self._caller.stores(self._async.list())


class Table:
    """One of the views, as a data frame. See `omniq_nb.core.client.AsyncTable`."""

    def __init__(self, caller: _Caller, twin: AsyncTable) -> None:
        self._caller = caller
        self._async = twin

    def df(
        self,
        *,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        limit: int | None = None,
        kind: str = "pandas",
        **where: object,
    ) -> "pd.DataFrame":
        """Its rows, oldest first.

        Parameters
        ----------
        since, until : datetime or float, optional
            The half-open span of time to look at.
        limit : int, optional
            At most so many rows.
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        **where
            Columns and the value, or the list of values, that they shall have.
        """
        __tracebackhide__ = True
        return self._caller.loop.call(
            self._async.df(since=since, until=until, limit=limit, kind=kind, **where)
        )


class OmniQ(Shown):
    """Submit functions, run them on workers, look at what came of them.

    Parameters
    ----------
    config : OmniQConfig, StorageBackendConfig, mapping, str, optional
        A whole configuration (as object, mapping, or path of a YAML file), or one backend for
        all four components (as object or URL). Without it the environment says
        (``OMNIQ_TASK_QUEUE_URL`` and so on), and without that it is SQLite under
        ``OMNIQ_BASE_DIR``.
    backend : the same, optional
        Another name of the same argument.

    Examples
    --------
    >>> from omniq_nb import OmniQ
    >>> with OmniQ("memory://") as oq:
    ...     info = oq.workers.start(2)
    ...     oq.map(pow, [2, 3, 4], [2, 2, 2]).results()
    [4, 9, 16]
    """

    def __init__(self, config: Backend | None = None, *, backend: Backend | None = None) -> None:
        self._async = AsyncOmniQ(config, backend=backend)
        self._caller = _Caller(self._async._engine, LoopThread.shared())
        self._caller.loop.call(self._async.open())
        self.config = self._async.config
        self.backend = backend
        self.workers = Workers(self._caller, self._async.workers)
        self.schedules = Schedules(self._caller, self._async.schedules)
        self.tasks = Table(self._caller, self._async.tasks)
        self.results = Table(self._caller, self._async.results)
        self.events = Table(self._caller, self._async.events)
        # Also when nobody closes it: what runs is given back, and what is pending is written.
        self._finalizer = weakref.finalize(self, _close_forgotten, self._caller, self._async)
        self._finalizer.atexit = False
        _open.add(self)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """A client with the configuration of a YAML file.

        Parameters
        ----------
        path : path
            The file, as ``config.to_yaml(path)`` writes it.
        """
        return cls(OmniQConfig.from_yaml(path))

    # ---------------------------------------------------------------- life

    def close(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """Stop the workers of this process and disconnect.

        ``with`` does it, and so does leaving Python.

        Parameters
        ----------
        timeout : float or None
            Seconds that running tasks have; what is not done then is given back to the queue.
        """
        if self._finalizer.detach() is not None:
            self._caller.closed = True
            self._caller.loop.call(self._async.close(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise NotSerializable(CLIENT_STAYS)

    def __repr__(self) -> str:
        return f"<OmniQ {self.config.project_name!r}>"

    # ---------------------------------------------------------------- submitting

    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...
    @overload
    def task(
        self, **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
    def task(  # type: ignore[misc]  # mypy does not match **options with overload 2
        self, function: Callable[P, R] | None = None, /, **options: Unpack[Options]
    ) -> TaskFunction[P, R] | Callable[[Callable[P, R]], TaskFunction[P, R]]:
        """Decorate a function: ``@oq.task`` or ``@oq.task(retries=3, timeout=60)``.

        Parameters
        ----------
        **options
            How its tasks are run; see `omniq_nb.core.options.Options`.
        """
        __tracebackhide__ = True
        chosen = self._caller.engine.defaults.updated(**options)
        if function is not None:
            return TaskFunction(self, function, chosen)
        return lambda function: TaskFunction(self, function, chosen)

    def submit(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> Handle[T]:
        """Enqueue one call, and return as soon as it is safe in the queue.

        Parameters
        ----------
        function : callable
            Decorated or not; from a module or written in the notebook.
        *args, **kwargs
            What to call it with.
        """
        __tracebackhide__ = True
        handle = self._caller.stores(self._async.submit(function, *args, **kwargs))
        return Handle(self._caller, handle.id)

    def map(
        self,
        function: Callable[..., T],
        /,
        *columns: object,
        name: str | None = None,
        **axes: object,
    ) -> Batch[T]:
        """Enqueue many calls: over iterables, or over every combination of a grid.

        Parameters
        ----------
        function : callable
            Decorated or not.
        *columns : iterables
            Positional arguments, walked together, as in Python's ``map``.
        name : str, optional
            The batch's name. The same name again enqueues only what is missing: calls that
            are new, and calls that failed, expired or were cancelled.
        **axes : iterables or constants
            Keyword arguments: lists, ranges and the like are axes of a grid, strings,
            mappings and single values are constants.

        Examples
        --------
        ``oq.map(fit, lr=[0.1, 0.2], depth=[2, 4, 8], seed=7, name="sweep-1")`` makes six tasks;
        ``oq.map(len, ["a", "bc"])`` two.
        """
        __tracebackhide__ = True
        twin = self._caller.stores(self._async.map(function, *columns, name=name, **axes))
        return Batch(self._caller, twin)

    def check(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> Check:
        """Look at a call without submitting it: what travels, and what would not work.

        Parameters
        ----------
        function : callable
            Decorated or not.
        *args, **kwargs
            What it would be called with.
        """
        __tracebackhide__ = True
        return self._caller.loop.call(self._async.check(function, *args, **kwargs))

    def ship(self, *modules: ModuleType) -> None:
        """Have modules of your own travel with the tasks that need them.

        Otherwise a worker imports a module, so it must be installed where the worker runs. A
        module that is shipped need not be. Edit it and ship it again: it is reloaded, and tasks
        submitted from then on have it as it is then. It holds for all clients of this process.

        Parameters
        ----------
        *modules : module
            Modules written in Python, or packages, with what is below them. What their functions
            import when they run must be there where the worker runs.
        """
        __tracebackhide__ = True
        self._async.ship(*modules)

    # ---------------------------------------------------------------- finding

    def handle(self, task_id: str) -> Handle[object]:
        """The handle of a task of which only the id is known."""
        return Handle(self._caller, task_id)

    def batch(self, name: str) -> Batch[object]:
        """A batch that was submitted earlier, perhaps by another process."""
        return Batch(self._caller, self._caller.loop.call(self._async.batch(name)))

    def dead_letters(self, queue: str | None = None) -> list[Task]:
        """The tasks that failed for good, oldest first: inspect and `requeue` them."""
        return self._caller.loop.call(self._async.dead_letters(queue))

    def requeue(self, *tasks: str | Task | Handle[object]) -> int:
        """Queue tasks again that failed, expired or were cancelled. How many that were."""
        return self._caller.loop.call(self._async.requeue(*_plain(tasks)))

    def cancel(self, *tasks: str | Task | Handle[object]) -> int:
        """Cancel tasks, queued or running. How many were not over yet."""
        return self._caller.loop.call(self._async.cancel(*_plain(tasks)))

    def counts(self) -> dict[str, dict[State, int]]:
        """How many tasks are in which state, by queue."""
        return self._caller.stores(self._async.counts())

    def as_completed(
        self, handles: Sequence[Handle[T]], timeout: float | None = None
    ) -> Iterator[Handle[T]]:
        """The handles, each as soon as its task is over."""
        return as_completed(handles, timeout)

    def gather(self, *handles: Handle[T], timeout: float | None = None) -> list[T]:
        """The values of all, in order. The first exception is raised; the others go on."""
        __tracebackhide__ = True
        return gather(*handles, timeout=timeout)

    # ---------------------------------------------------------------- looking

    def sql(
        self,
        query: str,
        parameters: Sequence[object] | Mapping[str, object] | None = None,
        kind: str = "pandas",
    ) -> "pd.DataFrame":
        """Query the views `tasks`, `results`, `events`, `schedules` and `workers`.

        Parameters
        ----------
        query : str
            One SELECT in DuckDB's SQL.
        parameters : sequence or mapping, optional
            For ``?`` or ``$name`` in the query.
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        """
        __tracebackhide__ = True
        return self._caller.loop.call(self._async.sql(query, parameters, kind))

    def panel(self) -> "Panel":
        """Steer it by hand: choose backends, start workers, watch, explore.

        Returns
        -------
        Panel
            Shown as the last line of a cell. A cell that is run again closes its earlier one.
        """
        return cast("Panel", notebook("panel").panel(self))

    def purge(self, before: datetime | float) -> dict[str, int]:
        """Forget tasks that finished, results and events from before that time.

        Parameters
        ----------
        before : datetime or float
            A moment; a datetime without a time zone is local time.
        """
        return self._caller.loop.call(self._async.purge(before))


def configure(project_name: str | None = None) -> ConfigBuilder[OmniQ]:
    """Choose backends step by step; ``.connect()`` gives an `OmniQ`.

    Parameters
    ----------
    project_name : str, optional
        Names the project's key and default places.

    Examples
    --------
    >>> from omniq_nb import configure
    >>> config = configure("sweeps").task_queue.memory().result_storage.like("task_queue").build()
    >>> config.get_result_storage_backend_config().backend_type
    'memory'
    """

    def connect(config: OmniQConfig) -> OmniQ:
        return OmniQ(config)

    return ConfigBuilder(project_name, connect)


def as_completed(handles: Sequence[Handle[T]], timeout: float | None = None) -> Iterator[Handle[T]]:
    """The handles, each as soon as its task is over.

    Parameters
    ----------
    handles : sequence of Handle
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
    caller = handles[0]._caller
    ended: SimpleQueue[str | None] = SimpleQueue()
    waiting = caller.stores(
        caller.engine.outcomes.wait(by_id, lambda result: ended.put(result.task_id))
    )
    waiting.done.add_done_callback(lambda done: ended.put(None))
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        for _ in by_id:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            task_id = ended.get(timeout=left)
            if task_id is None:
                waiting.done.result()
                return
            yield by_id[task_id]
    except Empty:
        ids = tuple(waiting.open)
        late = wait_timeout(caller.engine, f"{len(ids)} tasks are", timeout, ids)
        raise caller.stores(late) from None
    finally:
        caller.engine.outcomes.forget(waiting)


def gather(*handles: Handle[T], timeout: float | None = None) -> list[T]:
    """The values of all, in order; the first exception is raised, the others go on.

    Parameters
    ----------
    *handles : Handle
        Of one client.
    timeout : float, optional
        Seconds for all of them together.
    """
    __tracebackhide__ = True
    if not handles:
        return []
    caller = handles[0]._caller
    many = f"{len(handles)} tasks"
    results = caller.ended([handle.id for handle in handles], timeout, f"{many} are", many)
    return [cast(T, value_of(caller.engine, result)) for result in results]


def _plain(tasks: Sequence[str | Task | Handle[object]]) -> list[str]:
    return [task if isinstance(task, str) else task.id for task in tasks]


def _close_forgotten(caller: _Caller, client: AsyncOmniQ) -> None:
    """Close a client that was dropped, without making anybody wait for it."""
    caller.closed = True
    if not caller.loop.loop.is_closed():
        asyncio.run_coroutine_threadsafe(client.close(timeout=0), caller.loop.loop)


_open: "weakref.WeakSet[OmniQ]" = weakref.WeakSet()


def _close_all() -> None:
    for client in list(_open):
        client.close(timeout=1.0)


# Ordinary atexit functions run when thread pools have already been shut down, and closing
# needs threads. These hooks, which concurrent.futures uses for the pools, run before them, the
# last one registered first: so the pools' own must be there already.
import_module("concurrent.futures.thread")
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
