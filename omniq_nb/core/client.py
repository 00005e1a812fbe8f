"""`AsyncOmniQ`: the whole of omniq_nb for whoever has an event loop.

Its blocking twin is `omniq_nb.sync.OmniQ`; a test holds the two equal.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from omniq_nb.codec import Bundles, Codec, project_key
from omniq_nb.codec.shipping import ship
from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.config.logging import apply_logging
from omniq_nb.core.checking import Check, check
from omniq_nb.core.engine import Engine
from omniq_nb.core.function import AsyncTaskFunction, P, R, options_of
from omniq_nb.core.handle import AsyncBatch, AsyncHandle, as_completed, gather
from omniq_nb.core.options import Options, TaskOptions
from omniq_nb.core.schedules import AsyncSchedules
from omniq_nb.core.submission import Call, grid
from omniq_nb.core.workers import STOP_TIMEOUT, AsyncWorkers
from omniq_nb.errors import ConfigError, NotSerializable, PayloadRefused, UnknownTask
from omniq_nb.models.task import Retry, State, Task
from omniq_nb.storage.factory import StorageBackendFactory

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")
Backend = str | StorageBackendConfig | OmniQConfig | Mapping[str, object]


def configuration(where: Backend | None, backend: Backend | None) -> OmniQConfig:
    """The configuration that the first arguments of a client mean.

    Parameters
    ----------
    where : OmniQConfig, StorageBackendConfig, mapping, str or None
        A whole configuration, as object, mapping or path of a YAML file; or one backend for
        all four components, as object or URL; None takes the environment.
    backend : the same
        The customary second name of the same argument.
    """
    if where is not None and backend is not None:
        raise ConfigError("backend", backend, "either config or backend, not both")
    given = where if where is not None else backend
    if given is None:
        return OmniQConfig()
    if isinstance(given, OmniQConfig):
        return given
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        return OmniQConfig.from_yaml(given)
    if isinstance(given, str):
        given = StorageBackendConfig.from_url(given)
    if isinstance(given, StorageBackendConfig):
        return OmniQConfig(
            task_queue_backend=given,
            result_storage_backend=given,
            event_storage_backend=given,
            schedule_storage_backend=given,
        )
    if isinstance(given, Mapping):
        return OmniQConfig.from_dict(dict(given))
    allowed = "an OmniQConfig, a StorageBackendConfig, a mapping, a URL or the path of a YAML file"
    raise ConfigError("config", given, allowed)


def make_engine(config: OmniQConfig, key: bytes | None = None) -> Engine:
    """The inside of a client, not yet open. The project's key is looked up unless given."""
    apply_logging(config)
    settings = config.settings
    codec = Codec(
        project_key(settings.project_name) if key is None else key,
        strict=settings.strict,
        allow=settings.allowed_functions,
    )
    defaults = TaskOptions(
        queue=settings.default_queue,
        timeout=settings.task_timeout,
        ttl=settings.task_ttl,
        result_ttl=settings.result_ttl,
        retry=Retry(limit=settings.retry_attempts, delay=settings.retry_delay),
    )
    stores = StorageBackendFactory.create_stores(config)
    result_options = config.resolve("result_storage").options
    result_format = getattr(result_options, "serialization_format", "msgpack")
    return Engine(config, stores, codec, defaults, result_format)


class AsyncOmniQ:
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

    Raises
    ------
    ConfigError
        Something in the configuration is wrong.
    StoreUnavailable
        A backend lacks its driver.

    Examples
    --------
    >>> import asyncio
    >>> from omniq_nb import AsyncOmniQ
    >>> async def main():
    ...     async with AsyncOmniQ("memory://") as oq:
    ...         await oq.workers.start(2)
    ...         handle = await oq.submit(pow, 2, 10)
    ...         return await handle
    >>> asyncio.run(main())
    1024
    """

    def __init__(self, config: Backend | None = None, *, backend: Backend | None = None) -> None:
        self.config = configuration(config, backend)
        self.backend = backend
        self._engine = make_engine(self.config)
        self._opened: asyncio.AbstractEventLoop | None = None
        self.workers = AsyncWorkers(self._engine)
        self.schedules = AsyncSchedules(self._engine)
        self.tasks = AsyncTable(self._engine, "tasks")
        self.results = AsyncTable(self._engine, "results")
        self.events = AsyncTable(self._engine, "events")

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

    async def open(self) -> Self:
        """Connect the four stores. ``async with`` does it."""
        if self._opened is None:
            await self._engine.open()
            self._opened = asyncio.get_running_loop()
        return self

    async def close(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """Stop the workers of this process and disconnect. ``async with`` does it.

        Parameters
        ----------
        timeout : float or None
            Seconds that running tasks have; what is not done then is given back to the queue.
        """
        if self._opened is not None:
            self._opened = None
            await self.workers.stop(timeout=timeout)
            await self.workers.release()
            await self._engine.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __reduce__(self) -> str:
        raise NotSerializable(CLIENT_STAYS)

    # ---------------------------------------------------------------- submitting

    @overload
    def task(self, function: Callable[P, R], /) -> AsyncTaskFunction[P, R]: ...
    @overload
    def task(
        self, **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], AsyncTaskFunction[P, R]]: ...
    def task(  # type: ignore[misc]  # mypy does not match **options with overload 2
        self, function: Callable[P, R] | None = None, /, **options: Unpack[Options]
    ) -> AsyncTaskFunction[P, R] | Callable[[Callable[P, R]], AsyncTaskFunction[P, R]]:
        """Decorate a function: ``@oq.task`` or ``@oq.task(retries=3, timeout=60)``.

        Parameters
        ----------
        **options
            How its tasks are run; see `omniq_nb.core.options.Options`.

        Returns
        -------
        AsyncTaskFunction
            The function, with ``submit``, ``map`` and ``options`` beside.
        """
        chosen = self._engine.defaults.updated(**options)
        if function is not None:
            return AsyncTaskFunction(self, function, chosen)
        return lambda function: AsyncTaskFunction(self, function, chosen)

    async def submit(
        self, function: Callable[..., T], /, *args: object, **kwargs: object
    ) -> AsyncHandle[T]:
        """Enqueue one call.

        Parameters
        ----------
        function : callable
            Decorated or not; from a module or written in the notebook.
        *args, **kwargs
            What to call it with. Options are said by the decorator, or by
            ``function.options(...)``.

        Returns
        -------
        AsyncHandle
            At once, as soon as the task is safe in the queue.

        Raises
        ------
        NotSerializable
            The function or an argument cannot travel; the message says what and why.
        """
        options = options_of(function, self._engine.defaults)
        bundles = Bundles()
        task = self._engine.submission.task(function, args, kwargs, options, bundles=bundles)
        await self._engine.enqueue([task], function=function, bundles=bundles)
        return AsyncHandle(self._engine, task.id)

    async def map(
        self,
        function: Callable[..., T],
        /,
        *columns: object,
        name: str | None = None,
        **axes: object,
    ) -> AsyncBatch[T]:
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

        Returns
        -------
        AsyncBatch
            In the order of the grid, the last axis turning fastest.

        Examples
        --------
        ``await oq.map(fit, lr=[0.1, 0.2], depth=[2, 4, 8], seed=7, name="sweep-1")`` makes six
        tasks; ``await oq.map(len, ["a", "bc"])`` two.
        """
        return await self.enqueue_calls(function, grid(columns, axes), name)

    async def enqueue_calls(
        self, function: Callable[..., T], calls: Sequence[Call] | Any, name: str | None
    ) -> AsyncBatch[T]:
        """Enqueue a batch of explicit ``(args, kwargs)`` pairs; `map` in other words."""
        options = options_of(function, self._engine.defaults)
        bundles = Bundles()
        batch, tasks = self._engine.submission.batch(name, function, calls, options, bundles)
        await self._engine.enqueue(
            tasks, revive=name is not None, function=function, bundles=bundles
        )
        return AsyncBatch(self._engine, batch, [task.id for task in tasks])

    async def check(
        self, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Check:
        """Look at a call without submitting it: what travels, and what would not work.

        Parameters
        ----------
        function : callable
            Decorated or not.
        *args, **kwargs
            What it would be called with.

        Returns
        -------
        Check
            True if nothing is wrong. It says how large each thing is that travels, what cannot,
            and what the workers of its queue lack: their version of Python, and packages.
        """
        options = options_of(function, self._engine.defaults)
        return await check(self._engine, function, args, kwargs, options)

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

        Raises
        ------
        ConfigError
            One is no such module.
        PayloadRefused
            Strict mode forbids it.
        """
        if self._engine.codec.strict:
            raise PayloadRefused(
                "strict mode runs importable functions only, and shipped ones travel by value: "
                "install their package where the workers run"
            )
        for module in modules:
            ship(module)

    # ---------------------------------------------------------------- finding

    def handle(self, task_id: str) -> AsyncHandle[object]:
        """The handle of a task of which only the id is known."""
        return AsyncHandle(self._engine, task_id)

    async def batch(self, name: str) -> AsyncBatch[object]:
        """A batch that was submitted earlier, perhaps by another process.

        Raises
        ------
        UnknownTask
            No task has this batch's name.
        """
        table = await self._engine.explorer.table(
            "tasks", columns=("task_id",), where={"batch": name}, order="position"
        )
        if not table.num_rows:
            raise UnknownTask(f"no task of a batch {name!r} is known")
        return AsyncBatch(self._engine, name, table["task_id"].to_pylist())

    async def dead_letters(self, queue: str | None = None) -> list[Task]:
        """The tasks that failed for good, oldest first: inspect and `requeue` them."""
        where = {"state": str(State.FAILED)} | ({} if queue is None else {"queue": queue})
        table = await self._engine.explorer.table(
            "tasks", columns=("task_id",), where=where, order="finished_at"
        )
        tasks = await self._engine.stores.task_queue.get(table["task_id"].to_pylist())
        return [task for task in tasks if task is not None]

    async def requeue(self, *tasks: str | Task | AsyncHandle[object]) -> int:
        """Queue tasks again that failed, expired or were cancelled. How many that were."""
        return sum(await self._engine.requeue(ids_of(tasks)))

    async def cancel(self, *tasks: str | Task | AsyncHandle[object]) -> int:
        """Cancel tasks, queued or running. How many were not over yet."""
        return sum(await self._engine.cancel(ids_of(tasks)))

    async def counts(self) -> dict[str, dict[State, int]]:
        """How many tasks are in which state, by queue."""
        return counts_by_queue(await self._engine.stores.task_queue.counts())

    def as_completed(
        self, handles: Sequence[AsyncHandle[T]], timeout: float | None = None
    ) -> AsyncIterator[AsyncHandle[T]]:
        """The handles, each as soon as its task is over."""
        return as_completed(handles, timeout)

    async def gather(self, *handles: AsyncHandle[T], timeout: float | None = None) -> list[T]:
        """The values of all, in order. The first exception is raised; the others go on."""
        return await gather(*handles, timeout=timeout)

    # ---------------------------------------------------------------- looking

    async def sql(
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

        Raises
        ------
        QueryError
            The query is wrong, or is more than reading.
        """
        from omniq_nb.explore import to_frame

        await self._engine.events.catch_up()
        frame: pd.DataFrame = to_frame(await self._engine.explorer.sql(query, parameters), kind)
        return frame

    async def purge(self, before: datetime | float) -> dict[str, int]:
        """Forget tasks that finished, results and events from before that time.

        Parameters
        ----------
        before : datetime or float
            A moment; a datetime without a time zone is local time.

        Returns
        -------
        dict of str to int
            How many of each were forgotten.
        """
        return await self._engine.purge(moment(before))


class AsyncTable:
    """One of the views, as a data frame.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    view : str
        ``"tasks"``, ``"results"`` or ``"events"``.
    """

    def __init__(self, engine: Engine, view: str) -> None:
        self._engine = engine
        self._view = view

    async def df(
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
            The half-open span of time to look at: when tasks were created, results finished,
            events happened.
        limit : int, optional
            At most so many rows.
        kind : {"pandas", "arrow", "polars"}
            Which kind of table to give.
        **where
            Columns and the value, or the list of values, that they shall have.
        """
        from omniq_nb.explore import to_frame

        await self._engine.events.catch_up()
        table: pa.Table = await self._engine.explorer.table(
            self._view,
            since=None if since is None else moment(since),
            until=None if until is None else moment(until),
            where=where,
            limit=limit,
        )
        frame: pd.DataFrame = to_frame(table, kind)
        return frame


CLIENT_STAYS = (
    "an OmniQ client stays in the process that made it and cannot travel with a task: "
    "make one inside the task's function (OmniQ(...) with the same configuration), "
    "or pass values instead"
)


def ids_of(tasks: Sequence[object]) -> list[str]:
    """Ids of tasks given as ids, tasks or handles."""
    return [task if isinstance(task, str) else str(getattr(task, "id")) for task in tasks]  # noqa: B009


def counts_by_queue(counts: Mapping[tuple[str, State], int]) -> dict[str, dict[State, int]]:
    """The queue's counts, nested."""
    nested: dict[str, dict[State, int]] = {}
    for (queue, state), count in sorted(counts.items()):
        nested.setdefault(queue, {})[state] = count
    return nested


def moment(when: datetime | float) -> float:
    """A moment as seconds since 1970."""
    return when.timestamp() if isinstance(when, datetime) else float(when)
