"""A schedule store over any log: puts and removes, folded.

Not here: when a schedule fires (`omniq_nb.core.scheduler`).
"""

import builtins
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from omniq_nb.models.schedule import Schedule, ScheduleState
from omniq_nb.storage.base import ScheduleStore
from omniq_nb.storage.journal.log import Log
from omniq_nb.storage.journal.replica import Fold, Replica
from omniq_nb.storage.upkeep import Finding


class Put(msgspec.Struct, tag="put"):
    """Outcome: whether `expected_version` was the stored one (0: there was none)."""

    schedule: Schedule
    expected_version: int


class Remove(msgspec.Struct, tag="remove"):
    """Outcome: whether it was there."""

    id: str


class ScheduleFold(Fold[Put | Remove]):
    """Schedules by id."""

    version = 1
    commands = Put | Remove

    def __init__(self, dump: bytes | None) -> None:
        stored = [] if dump is None else msgspec.msgpack.decode(dump, type=list[Schedule])
        self.schedules = {schedule.id: schedule for schedule in stored}

    def apply(self, command: Put | Remove) -> bool:
        """See `Put` and `Remove`."""
        if isinstance(command, Remove):
            return self.schedules.pop(command.id, None) is not None
        known = self.schedules.get(command.schedule.id)
        if (known.version if known else 0) != command.expected_version:
            return False
        schedule = _copy(command.schedule)
        schedule.version = command.expected_version + 1
        self.schedules[schedule.id] = schedule
        return True

    def dump(self) -> bytes:
        """See `Fold`."""
        return msgspec.msgpack.encode(list(self.schedules.values()))


class JournalScheduleStore(ScheduleStore):
    """See the module.

    Parameters
    ----------
    log : Log
        Its own: nothing else in this process may use it.
    """

    def __init__(self, log: Log) -> None:
        self.immediate = log.immediate  # type: ignore[misc]
        self.rest = log.rest
        self._replica = Replica(log, ScheduleFold)

    async def open(self) -> None:
        """See `Store`."""
        await self._replica.open()

    async def close(self) -> None:
        """See `Store`."""
        await self._replica.close()

    async def put(self, schedule: Schedule, expected_version: int) -> bool:
        """See `ScheduleStore`."""
        return await self._publish(Put(schedule, expected_version))

    async def get(self, id: str) -> Schedule | None:
        """See `ScheduleStore`."""

        def look(fold: ScheduleFold) -> Schedule | None:
            schedule = fold.schedules.get(id)
            return _copy(schedule) if schedule else None

        return await self._replica.read(look)

    async def due(self, now: float, limit: int) -> list[Schedule]:
        """See `ScheduleStore`."""

        def look(fold: ScheduleFold) -> builtins.list[tuple[float, Schedule]]:
            return [
                (schedule.next_fire_at, _copy(schedule))
                for schedule in fold.schedules.values()
                if schedule.state is ScheduleState.ACTIVE
                and schedule.next_fire_at is not None
                and schedule.next_fire_at <= now
            ]

        found = await self._replica.read(look, idle=True)
        due = sorted(found, key=lambda pair: (pair[0], pair[1].id))
        return [schedule for _, schedule in due[:limit]]

    async def list(self) -> builtins.list[Schedule]:
        """See `ScheduleStore`."""
        schedules = await self._replica.read(
            lambda fold: [_copy(schedule) for schedule in fold.schedules.values()]
        )
        return sorted(schedules, key=lambda schedule: schedule.id)

    async def remove(self, id: str) -> bool:
        """See `ScheduleStore`."""
        return await self._publish(Remove(id))

    async def compact(self) -> None:
        """See `Kept`."""
        await self._replica.compact()

    async def inspect(self, repair: bool) -> Sequence[Finding]:
        """See `Kept`."""
        return await self._replica.inspect(repair)

    async def _publish(self, command: Put | Remove) -> bool:
        return await self._replica.publish(command, True, lambda outcome, _: bool(outcome))


def _copy(schedule: Schedule) -> Schedule:
    return replace(schedule, template=replace(schedule.template))
