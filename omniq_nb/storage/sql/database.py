"""What the stores ask of a database, and what differs from one database to another.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with ``?`` for a
parameter and two kinds of fields in braces: ``{rows}`` is a list of rows of parameters, as in
``VALUES {rows}``, and the others are those of `Dialect`.

Not here: any statement (they stand with the stores), any driver (`omniq_nb.storage.sql.sqlite`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

Answer = TypeVar("Answer")
Row = tuple[Any, ...]

CHUNK = 5_000
"""Rows that a purge deletes in one transaction, so that others get their turn."""


class Dialect(NamedTuple):
    """The pieces of SQL in which databases differ.

    Attributes
    ----------
    serial : str
        The type of a primary key that is a number.
    bytes : str
        The type of binary data.
    clustered : str
        What makes a table lie in the order of its primary key.
    lock : str
        Locks the rows of ``t`` that were read until the transaction ends.
    skip_locked : str
        The same, and passes over rows that others have locked.
    """

    serial: str
    bytes: str
    clustered: str
    lock: str
    skip_locked: str


class Transaction(ABC):
    """The statements of one piece of work. What it wrote is committed as a whole or not at all."""

    @abstractmethod
    async def now(self) -> float:
        """Tell the time by which leases are measured, in seconds since 1970."""

    @abstractmethod
    async def numbers(self, count: int) -> Sequence[int]:
        """Give ascending numbers for new tasks, higher than all that are in use."""

    @abstractmethod
    async def fetch(self, statement: str, *parameters: object) -> list[Row]:
        """Run a statement and give its rows."""

    @abstractmethod
    async def execute(self, statement: str, *parameters: object) -> int:
        """Run a statement and give the number of rows that it changed."""

    @abstractmethod
    async def fetch_each(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        """Run a statement with ``{rows}``, perhaps in several steps, and give all its rows."""

    @abstractmethod
    async def execute_each(self, statement: str, rows: Sequence[Row], *parameters: object) -> int:
        """Run a statement with ``{rows}``, perhaps in several steps; count the rows it changed.

        `parameters` stand before the rows in the statement.
        """

    @abstractmethod
    async def hold_off_adding(self) -> None:
        """Let nobody else add tasks until this is over. Who is adding just now comes first."""

    @abstractmethod
    def notify(self) -> None:
        """Wake who waits for work, in every process, once this is committed."""


Work = Callable[[Transaction], Coroutine[Any, Any, Answer]]
"""Something to do in a transaction. It may be begun more than once, but is committed once."""


class Watch(ABC):
    """Sees what others commit, from the moment on at which it was opened."""

    @abstractmethod
    async def changed(self, timeout: float) -> bool:
        """Return when something may have changed since the last call, or after the timeout.

        True: somebody said that there is work.
        """


class Database(ABC):
    """A database with our tables in it, shared by the stores of one place.

    `immediate` is what `Store` says of it.
    """

    immediate: ClassVar[bool]

    @abstractmethod
    async def open(self, user: object) -> None:
        """Connect for the first user, and create or upgrade the tables."""

    @abstractmethod
    async def close(self, user: object) -> None:
        """Disconnect after the last user."""

    @abstractmethod
    async def read(self, work: Work[Answer]) -> Answer:
        """Do work whose statements are each for themselves, as those are that only read."""

    @abstractmethod
    async def write(self, work: Work[Answer], size: int = 0) -> Answer:
        """Do work in a transaction. `size` is the number of bytes that it writes, roughly."""

    @abstractmethod
    async def table(
        self, statement: str, parameters: Sequence[object], columns: Sequence[tuple[str, str]]
    ) -> "pa.Table":
        """Read the rows of a SELECT, however many, into an Arrow table.

        `columns` are the names and the SQL types (TEXT, BIGINT or DOUBLE PRECISION) of what the
        statement selects: an Arrow column has that type even if all of it is null.
        """

    @abstractmethod
    def watch(self) -> AbstractContextManager[Watch]:
        """Watch for changes."""
