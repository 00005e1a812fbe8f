"""What the two dicts have in common: opening, closing, and becoming a table."""

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from omniq_nb.errors import StoreClosed
from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.storage.base import Query, Scan, Store

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row", Result, Event)

INLINE = 1_000
"""Rows that become a table without a detour through a thread."""


class MemoryStore(Store, Generic[Row]):
    """Rows by their ids. Callers keep theirs: what goes in and comes out is copied."""

    immediate: ClassVar[bool] = True
    time: ClassVar[str]
    """The column that a query's range is about."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._open = False

    async def open(self) -> None:
        """See `Store`."""
        self._open = True

    async def close(self) -> None:
        """Refuse further use. What is stored stays until the object is gone."""
        self._open = False

    async def scan(self, query: Query) -> Scan:
        """Make a table of the rows asked for."""
        self._check_open()
        with self._lock:
            rows = list(self._rows.values())  # replaced by others at times, but never changed

        def work() -> Scan:
            return Scan(self._table(self._matching(rows, query), query.columns))

        if len(rows) > INLINE and _on_a_loop():
            return await asyncio.to_thread(work)
        return work()

    @abstractmethod
    def _table(self, rows: Sequence[Row], columns: Sequence[str] | None) -> "pa.Table":
        """Make an Arrow table of rows."""

    def _matching(self, rows: list[Row], query: Query) -> list[Row]:
        for column, accepted in query.equals.items():
            value = attrgetter(column)
            rows = [row for row in rows if value(row) in accepted]
        if query.since is None and query.until is None:
            return rows
        time = attrgetter(self.time)
        since = float("-inf") if query.since is None else query.since
        until = float("inf") if query.until is None else query.until
        return [row for row in rows if (at := time(row)) is not None and since <= at < until]

    def _check_open(self) -> None:
        if not self._open:
            raise StoreClosed("This store in memory is closed.")


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
