"""Events as a dict."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

from omniq_nb.models.event import Event
from omniq_nb.storage.base import EventStore
from omniq_nb.storage.memory.rows import MemoryStore

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryEventStore(MemoryStore[Event], EventStore):
    """Events by id; see `omniq_nb.storage.base.EventStore`."""

    time = "at"

    async def append(self, events: Sequence[Event]) -> None:
        """Keep the first of each id."""
        self._check_open()
        with self._lock:
            for event in events:
                if event.id not in self._rows:
                    self._rows[event.id] = copy(event)

    async def purge(self, before: float) -> int:
        """Look at each."""
        self._check_open()
        with self._lock:
            gone = [event.id for event in self._rows.values() if event.at < before]
            for event_id in gone:
                del self._rows[event_id]
        return len(gone)

    def _table(self, rows: Sequence[Event], columns: Sequence[str] | None) -> "pa.Table":
        from omniq_nb.storage.tables import EVENTS, select, table

        return table(rows, select(EVENTS, columns))
