"""The event store."""

from collections.abc import Sequence

from omniq_nb.models.event import Event
from omniq_nb.storage.base import EventStore, Query, Scan
from omniq_nb.storage.shared import SharedStore
from omniq_nb.storage.sql.database import CHUNK, Database, Transaction
from omniq_nb.storage.sql.rows import EVENT, columns, event_row

APPEND = f"INSERT INTO omniq_events ({columns(EVENT)}) VALUES {{rows}} ON CONFLICT DO NOTHING"

# The last of the next few events to go.
BOUNDARY = """
    SELECT max(at) FROM (SELECT at FROM omniq_events WHERE at < ? ORDER BY at LIMIT ?) AS oldest
"""
DELETE = "DELETE FROM omniq_events WHERE at <= ?"


class SqlEventStore(SharedStore[Database], EventStore):
    """Events in a database; see `EventStore`."""

    async def append(self, events: Sequence[Event]) -> None:
        """Store; see `EventStore`."""
        if not events:
            return
        rows = [event_row(event) for event in events]
        size = sum(len(event.message or "") + len(event.data or "") + 200 for event in events)
        await self._database.write(lambda tx: tx.execute_each(APPEND, rows), size)

    async def scan(self, query: Query) -> Scan:
        """Read; see `EventStore`."""
        from omniq_nb.storage.sql.scan import scan_events

        return await scan_events(self._database, query)

    async def purge(self, before: float) -> int:
        """Delete, oldest first; see `EventStore`."""

        async def some(tx: Transaction) -> int:
            ((last,),) = await tx.fetch(BOUNDARY, before, CHUNK)
            return 0 if last is None else await tx.execute(DELETE, last)

        purged = 0
        while number := await self._database.write(some):
            purged += number
        return purged
