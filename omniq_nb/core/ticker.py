"""Turns due schedules into tasks. Any number of processes may tick at the same time.

The task of a fire time has the id ``{schedule}@{fire time}``, which the queue accepts once;
moving the schedule on is a compare-and-set. So each fire time enqueues exactly one task.

A look at a local store costs next to nothing: there is one each second. A store on a server is
asked less and less often while nothing is due soon, every five seconds in the end. What this
client changes is seen at once, so only a schedule that another process made or changed may fire
late by so much, and only the first time: from then on its fire time is known.
"""

import asyncio
import logging
import time
from contextlib import suppress

from omniq_nb.core.engine import Engine
from omniq_nb.core.scheduling import fired, task_for
from omniq_nb.errors import StoreError
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.schedule import Schedule

TICK_FIRST, TICK_LAST = 1.0, 5.0
"""The longest pause between two looks at the schedules, seconds: at first, and after a while in
which a store on a server knew of nothing to do."""

AT_ONCE = 100
"""Schedules taken at once."""

log = logging.getLogger("omniq_nb.schedules")


class Ticker:
    """Looks for due schedules as long as this client has workers.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ticking: asyncio.Task[None] | None = None
        self._horizon = TICK_FIRST

    def start(self) -> None:
        """Begin to tick, if it does not yet."""
        if self._ticking is None:
            self._horizon = TICK_FIRST
            self._ticking = asyncio.create_task(self._tick_forever(), name="omniq schedules")

    async def stop(self) -> None:
        """Tick no more."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])
            self._ticking = None

    async def _tick_forever(self) -> None:
        with self._engine.schedules_changed.listen() as changed:
            while True:
                pause = TICK_FIRST
                changed.clear()
                try:
                    pause = await self.tick()
                except StoreError as error:
                    log.warning("schedules wait: %s", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()

    async def tick(self) -> float:
        """Enqueue what is due. Seconds until the next look."""
        now = time.time()
        store = self._engine.stores.schedule_storage
        soon = await store.due(now + self._horizon, AT_ONCE)
        coming = [now + self._horizon]
        self._horizon = TICK_FIRST if soon or store.immediate else min(2 * self._horizon, TICK_LAST)
        fired_all = False
        for schedule in soon:
            at = schedule.next_fire_at
            fired_all = at is not None and at <= now
            if fired_all:
                at = await self._fire(schedule)
            if at is not None:
                coming.append(at)
        if fired_all and len(soon) == AT_ONCE:
            return 0.0  # there may be more
        return max(0.0, min(coming) - time.time())

    async def _fire(self, schedule: Schedule) -> float | None:
        """Enqueue one task. When the schedule fires next."""
        now = time.time()
        after = fired(schedule, now)
        fire_time = after.last_fire_at
        assert fire_time is not None
        task = task_for(schedule, fire_time, self._engine.codec)
        (new,) = await self._engine.enqueue([task])
        await self._engine.stores.schedule_storage.put(after, schedule.version)
        if new:
            happened = Event(
                id=f"{task.id}:{EventType.SCHEDULE_FIRED}",
                type=EventType.SCHEDULE_FIRED,
                at=now,
                task_id=task.id,
                name=task.name,
                queue=task.queue,
                message=f"schedule {schedule.id!r}",
            )
            self._engine.events.emit([happened])
        return after.next_fire_at
