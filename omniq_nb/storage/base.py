"""The four interfaces that every backend implements, and what they hand to DuckDB.

Batch first, few methods, no default bodies: a default would hide what a backend cannot do.
Stores are asynchronous and have no blocking twins. Events are emitted by the engine, never by
a store. What every implementation must do is spelled out by the suites in `omniq_nb.testing`.

Not here: how tasks move between states (`omniq_nb.machine`), and batching (`omniq_nb.core`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec

from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo

if TYPE_CHECKING:
    import pyarrow as pa

BUNDLE_KEPT = 24 * 3600.0
"""Seconds for which a bundle is kept, at least, that no task names: one may be on its way."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows and columns a scan is for.

    A store may give more than was asked for: whoever reads it filters again. So each store
    pushes down what it does cheaply.

    Attributes
    ----------
    columns : tuple of str or None
        Columns of the component's schema (`omniq_nb.storage.tables`); None for all.
    since, until : float or None
        Half-open range, in seconds since 1970, of the component's time column.
    equals : mapping of str to tuple of str
        Column name to accepted values.
    """

    columns: tuple[str, ...] | None = None
    since: float | None = None
    until: float | None = None
    equals: Mapping[str, tuple[str, ...]] = {}


class Scan:
    """Rows in a form that DuckDB reads without copying: Arrow tables and Parquet files.

    Parameters
    ----------
    table : pyarrow.Table
        Rows in memory, in the component's schema (or the columns asked for), possibly none.
    files : sequence of str
        Paths or URLs of Parquet files in the same schema, to be read in place; older files may
        lack columns that were added later, which then read as null.
    """

    def __init__(self, table: "pa.Table", files: Sequence[str] = ()) -> None:
        self.table = table
        self.files = tuple(files)


class Store(ABC):
    """What the four interfaces have in common.

    `immediate` says that the methods may also be called outside an event loop, from any thread
    and from several at once, and then finish without ever suspending: the blocking face uses
    such a store in the caller's own thread and saves two thread switches. On a running loop
    they must not block it noticeably, immediate or not.

    `rest` is not 0 where each request costs money: an idle worker then lets so many seconds pass
    between two heartbeats, and more is gathered for one request.
    """

    immediate: ClassVar[bool]
    rest: float = 0.0

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create or upgrade what is missing. Opening twice is harmless.

        Raises
        ------
        StoreUnavailable
            It cannot be reached or lacks what it needs; the message says what to do.
        StoreVersionError
            A newer omniq_nb wrote it.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release every connection, thread and file. Closing twice is harmless."""


class TaskQueue(Store):
    """Tasks: the truth about who is to run what. `omniq_nb.machine` says what each verb means."""

    @abstractmethod
    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        """Enqueue, all or none. When it returns, the tasks survive any crash that the backend does.

        Parameters
        ----------
        tasks : sequence of Task
            Up to any number, in enqueue order.
        revive : bool
            Replace known tasks that are failed, cancelled or expired, and queue them again.

        Returns
        -------
        list of bool
            False: the id is already known, and nothing was changed.
        """

    @abstractmethod
    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        """Lease up to `limit` due tasks for `lease` seconds.

        They come in the order of `queues`, then by priority (higher first), `available_at` and
        arrival.

        Returns
        -------
        list of Task
            With `call`. Those in state RUNNING are the caller's to run. Those in a final state
            (expired, or lost too often) have just ended: the caller reports them, once.
        """

    @abstractmethod
    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """Move leases to `lease` seconds from now. False: revoked or lost, stop the work.

        With 0 seconds they end: who waits for tasks is woken.
        """

    @abstractmethod
    async def held_by(self, worker: str) -> list[Claim]:
        """The claims of a worker, those whose lease is over included."""

    @abstractmethod
    def commits_with(self, results: "ResultStore") -> bool:
        """Whether `settle` can put results into that store in its own transaction."""

    @abstractmethod
    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        """Apply outcomes by claim. False: the claim is stale and was refused.

        Parameters
        ----------
        outcomes : sequence of Settle
            At most one for each task.
        results : sequence of Result
            Only if `commits_with` answered True: rows to put in the same transaction, those of
            refused outcomes left out.
        """

    @abstractmethod
    async def transition(self, ids: Sequence[str], to: State) -> list[State | None]:
        """Move tasks by hand: to CANCELLED, QUEUED (requeue) or EXPIRED (if its time is over).

        The state afterwards; None: unknown. A transition that is not allowed leaves the state
        as it is.
        """

    @abstractmethod
    async def put_bundle(self, name: str, data: bytes) -> None:
        """Keep bytes that the calls of several tasks refer to, as durably as tasks.

        They stay as long as a task names them (`Task.bundles`) that may still be run, or be
        queued again, and `BUNDLE_KEPT` seconds from the last time that they were put. After
        that a purge or the store itself deletes them at some time.

        Parameters
        ----------
        name : str
            Letters and digits. The same name always stands for the same bytes.
        data : bytes
            Any number.
        """

    @abstractmethod
    async def get_bundle(self, name: str) -> bytes | None:
        """The bytes of a bundle. None: it was never put, or is deleted."""

    @abstractmethod
    async def get(self, ids: Sequence[str]) -> list[Task | None]:
        """Tasks by id, without `call`. None: unknown."""

    @abstractmethod
    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Return when a task of `queues` may be due, or after `timeout` seconds.

        A hint: it may return too early, and must return soon after an `add`, `transition` or
        `settle` that made a task due, in this process or another one.
        """

    @abstractmethod
    async def counts(self) -> dict[tuple[str, State], int]:
        """The number of tasks by queue and state."""

    @abstractmethod
    async def workers(self, beat: WorkerInfo | None = None) -> list[WorkerInfo]:
        """Record a heartbeat, if given, and list all known workers."""

    @abstractmethod
    async def scan(self, query: Query) -> Scan:
        """Tasks as rows of `tables.TASKS`, by `created_at`."""

    @abstractmethod
    async def purge(self, before: float) -> int:
        """Forget final tasks that finished, and workers last heard of, before that time.

        Returns the number of tasks. A task that a blocked one waits for is kept. Bundles go that
        nothing needs: see `put_bundle`.
        """


class ResultStore(Store):
    """Outcomes. At most one for each task counts: the one with the highest token."""

    @abstractmethod
    async def put(self, results: Sequence[Result]) -> None:
        """Store, all or none, durably. A result with a lower token than a stored one is dropped."""

    @abstractmethod
    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """The results of exactly these claims. None: not stored (any more), or superseded."""

    @abstractmethod
    async def scan(self, query: Query) -> Scan:
        """Results as rows of `tables.RESULTS`, by `finished_at`, at most one for each task.

        The bytes of `payload` are not among the columns.
        """

    @abstractmethod
    async def purge(self, now: float, before: float | None = None) -> int:
        """Delete what expired by `now`, and what finished before `before`. Returns the number."""


class EventStore(Store):
    """The history: append only, each id once."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Store, all or none. An id that is already stored is dropped, at the latest by `scan`."""

    @abstractmethod
    async def scan(self, query: Query) -> Scan:
        """Events as rows of `tables.EVENTS`, by `at`, each once."""

    @abstractmethod
    async def purge(self, before: float) -> int:
        """Delete events older than that. Returns the number."""


class ScheduleStore(Store):
    """Schedules, each changed only by whoever read its newest version."""

    @abstractmethod
    async def put(self, schedule: Schedule, expected_version: int) -> bool:
        """Create (`expected_version` 0) or replace (the stored version must be the expected one).

        The stored version becomes `expected_version + 1`. False: somebody was faster.
        """

    @abstractmethod
    async def get(self, id: str) -> Schedule | None:
        """The schedule of that id. None: unknown."""

    @abstractmethod
    async def due(self, now: float, limit: int) -> list[Schedule]:
        """Active schedules whose `next_fire_at` is not after `now`, earliest first."""

    @abstractmethod
    async def list(self) -> list[Schedule]:
        """All schedules, by id."""

    @abstractmethod
    async def remove(self, id: str) -> bool:
        """Delete it. False: unknown."""


class Stores(msgspec.Struct, frozen=True):
    """The four stores of one omniq, opened and closed together."""

    task_queue: TaskQueue
    result_storage: ResultStore
    event_storage: EventStore
    schedule_storage: ScheduleStore
