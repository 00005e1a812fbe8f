"""The schedule store."""

import msgspec

from omniq_nb.models.schedule import Schedule, ScheduleState
from omniq_nb.storage.base import ScheduleStore
from omniq_nb.storage.shared import SharedStore
from omniq_nb.storage.sql.database import Database, Row, Transaction

CREATE = """
    INSERT INTO omniq_schedules (next_fire_at, schedule, version, id) VALUES (?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
REPLACE = """
    UPDATE omniq_schedules SET next_fire_at = ?, schedule = ?, version = ?
    WHERE id = ? AND version = ?
"""
GET = "SELECT schedule FROM omniq_schedules WHERE id = ?"
LIST = "SELECT schedule FROM omniq_schedules ORDER BY id"
DUE = """
    SELECT schedule FROM omniq_schedules WHERE next_fire_at <= ? ORDER BY next_fire_at, id LIMIT ?
"""
REMOVE = "DELETE FROM omniq_schedules WHERE id = ?"


class SqlScheduleStore(SharedStore[Database], ScheduleStore):
    """Schedules in a database; see `ScheduleStore`."""

    async def put(self, schedule: Schedule, expected_version: int) -> bool:
        """Create or replace; see `ScheduleStore`."""
        version = expected_version + 1
        fires = schedule.next_fire_at if schedule.state is ScheduleState.ACTIVE else None
        stored = msgspec.msgpack.encode(msgspec.structs.replace(schedule, version=version))

        async def work(tx: Transaction) -> bool:
            if expected_version == 0:
                return await tx.execute(CREATE, fires, stored, version, schedule.id) > 0
            changed = await tx.execute(
                REPLACE, fires, stored, version, schedule.id, expected_version
            )
            return changed > 0

        return await self._database.write(work, len(stored))

    async def get(self, id: str) -> Schedule | None:
        """Read one; see `ScheduleStore`."""
        rows = await self._database.read(lambda tx: tx.fetch(GET, id))
        return _schedule_of(rows[0]) if rows else None

    async def due(self, now: float, limit: int) -> list[Schedule]:
        """Read those that fire; see `ScheduleStore`."""
        rows = await self._database.read(lambda tx: tx.fetch(DUE, now, limit))
        return [_schedule_of(row) for row in rows]

    async def list(self) -> list[Schedule]:
        """Read all; see `ScheduleStore`."""
        rows = await self._database.read(lambda tx: tx.fetch(LIST))
        return [_schedule_of(row) for row in rows]

    async def remove(self, id: str) -> bool:
        """Delete; see `ScheduleStore`."""
        return await self._database.write(lambda tx: tx.execute(REMOVE, id)) > 0


def _schedule_of(row: Row) -> Schedule:
    return msgspec.msgpack.decode(row[0], type=Schedule)
