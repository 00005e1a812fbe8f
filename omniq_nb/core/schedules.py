"""``oq.schedules``: cron, interval and one-off rules that enqueue tasks.

Not here: when a rule fires (`omniq_nb.core.scheduling`) and who makes it fire
(`omniq_nb.core.ticker`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Unpack

import msgspec

from omniq_nb.core.engine import Engine
from omniq_nb.core.function import options_of
from omniq_nb.core.handle import AsyncHandle
from omniq_nb.core.options import Options
from omniq_nb.core.scheduling import fire_times, next_fire, parse_trigger, task_for
from omniq_nb.errors import ConfigError, StoreError, UnknownTask
from omniq_nb.models.schedule import Schedule, ScheduleState

ATTEMPTS = 20
"""How often a change is tried again when others change the same schedule meanwhile."""


class AsyncSchedules:
    """Schedules by id. Any worker of any process on the same storage makes them fire.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.stores.schedule_storage

    async def add(
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

        Returns
        -------
        Schedule
            As stored, with `next_fire_at`.

        Raises
        ------
        ScheduleError
            The rule is not exactly one of cron, every and at, or is wrong.
        """
        if not isinstance(id, str) or not id:
            raise ConfigError("id", id, "a non-empty string")
        rule = parse_trigger(cron=cron, every=every, at=at, timezone=timezone)
        chosen = options_of(function, self._engine.defaults).updated(**options)
        template = self._engine.submission.template(id, function, tuple(args), kwargs or {}, chosen)
        now = time.time()
        for _ in range(ATTEMPTS):
            known = await self._store.get(id)
            schedule = Schedule(
                id=id,
                template=template,
                starts_at=now,
                created_at=known.created_at if known else now,
                last_fire_at=known.last_fire_at if known else None,
                **rule,
            )
            schedule.next_fire_at = next_fire(schedule, now)
            version = known.version if known else 0
            if await self._put(schedule, version):
                schedule.version = version + 1
                return schedule
        raise StoreError(f"schedule {id!r}: others change it all the time; try again")

    async def get(self, id: str) -> Schedule:
        """The schedule of that id.

        Raises
        ------
        UnknownTask
            There is none.
        """
        schedule = await self._store.get(id)
        if schedule is None:
            raise UnknownTask(f"no schedule {id!r} is known")
        return schedule

    async def next(self, id: str, n: int = 5) -> list[datetime]:
        """The next `n` fire times, or fewer if there are fewer, in UTC."""
        schedule = await self.get(id)
        times = fire_times(schedule, time.time(), n)
        return [datetime.fromtimestamp(moment, UTC) for moment in times]

    async def pause(self, id: str) -> None:
        """Let it not fire until it is resumed; what it would have enqueued meanwhile is gone."""
        await self._change(id, lambda schedule: _paused(schedule))

    async def resume(self, id: str) -> None:
        """Let it fire again, from now on."""
        await self._change(id, lambda schedule: _resumed(schedule, time.time()))

    async def trigger(self, id: str) -> AsyncHandle[object]:
        """Enqueue its task now, besides its fire times."""
        schedule = await self.get(id)
        task = task_for(schedule, time.time(), self._engine.codec)
        await self._engine.enqueue([task])
        return AsyncHandle(self._engine, task.id)

    async def remove(self, id: str) -> bool:
        """Delete it; tasks that it has enqueued stay. False: unknown."""
        return await self._store.remove(id)

    async def list(self) -> list[Schedule]:
        """All schedules, by id."""
        return await self._store.list()

    async def _change(self, id: str, change: Callable[[Schedule], Schedule]) -> None:
        for _ in range(ATTEMPTS):
            schedule = await self.get(id)
            if await self._put(change(schedule), schedule.version):
                return
        raise StoreError(f"schedule {id!r}: others change it all the time; try again")

    async def _put(self, schedule: Schedule, version: int) -> bool:
        """Store it, and let the ticker of this client look at once."""
        stored = await self._store.put(schedule, version)
        self._engine.schedules_changed.ring()
        return stored


def _paused(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(schedule, state=ScheduleState.PAUSED, next_fire_at=None)


def _resumed(schedule: Schedule, now: float) -> Schedule:
    coming = next_fire(schedule, now)
    state = ScheduleState.DONE if coming is None else ScheduleState.ACTIVE
    return msgspec.structs.replace(schedule, state=state, next_fire_at=coming)
