"""The schedule store."""

from omniq_nb.models.schedule import Schedule, ScheduleState
from omniq_nb.storage.base import ScheduleStore
from omniq_nb.storage.redis import scripts
from omniq_nb.storage.redis.database import RedisDatabase
from omniq_nb.storage.redis.rows import packed_schedule, schedule_of, text, version_digits
from omniq_nb.storage.shared import SharedStore


class RedisScheduleStore(SharedStore[RedisDatabase], ScheduleStore):
    """Schedules on a Redis server; see `ScheduleStore`."""

    async def put(self, schedule: Schedule, expected_version: int) -> bool:
        """Create or replace; see `ScheduleStore`."""
        fires = schedule.next_fire_at if schedule.state is ScheduleState.ACTIVE else None
        request = (
            schedule.id,
            version_digits(expected_version).decode(),
            text(packed_schedule(schedule, expected_version + 1)),
            False if fires is None else fires,
        )
        return bool(await self._database.run(scripts.PUT_SCHEDULE, request))

    async def get(self, id: str) -> Schedule | None:
        """Read one; see `ScheduleStore`."""
        stored = await self._database.command("HGET", self._database.key("schedules"), id)
        return None if stored is None else schedule_of(stored)

    async def due(self, now: float, limit: int) -> list[Schedule]:
        """Read those that fire; see `ScheduleStore`."""
        return [
            schedule_of(stored)
            for stored in await self._database.run(scripts.DUE_SCHEDULES, (now, limit))
        ]

    async def list(self) -> list[Schedule]:
        """Read all; see `ScheduleStore`."""
        stored = await self._database.command("HVALS", self._database.key("schedules"))
        return sorted(map(schedule_of, stored), key=lambda schedule: schedule.id)

    async def remove(self, id: str) -> bool:
        """Delete; see `ScheduleStore`."""
        return bool(await self._database.run(scripts.REMOVE_SCHEDULE, (id,)))
