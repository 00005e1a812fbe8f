"""The suites are tested too: for each way to break a store there is a test that notices."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule
from omniq_nb.models.task import Claim, Settle, State, Task
from omniq_nb.storage.base import Query, Scan
from omniq_nb.storage.memory import MemoryPlace
from omniq_nb.testing import (
    EventStoreSuite,
    ResultStoreSuite,
    ScheduleStoreSuite,
    TaskQueueSuite,
)


class Broken:
    """A store of which some methods are replaced; the rest is as good as ever."""

    def __init__(self, sound: Any) -> None:
        self.sound = sound

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sound, name)


class NoFencing(Broken):
    """Settles for whoever knows the id."""

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        tasks = await self.sound.get([outcome.id for outcome in outcomes])
        newest = [
            msgspec.structs.replace(outcome, token=task.token) if task else outcome
            for outcome, task in zip(outcomes, tasks, strict=True)
        ]
        return await self.sound.settle(newest, results)


class ExtendsAnything(Broken):
    """Tells every worker that its lease holds."""

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        await self.sound.extend(claims, lease)
        return [True] * len(claims)


class LastInFirstOut(Broken):
    """Forgets the order of arrival."""

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        added = await self.sound.add(tasks[::-1], revive)
        return added[::-1]


class NoPriorities(Broken):
    """Takes every task for equally important."""

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        return await self.sound.add(
            [msgspec.structs.replace(task, priority=0) for task in tasks], revive
        )


class ClaimsTwice(Broken):
    """Reads, waits and only then remembers: two claims get the same task."""

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        held = await self.sound.claim(queues, limit, -1.0, worker)
        await asyncio.sleep(0)
        await self.sound.extend([task.claim for task in held], lease)
        return held


class ClaimsTooMany(Broken):
    """Takes one more than asked for."""

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        return await self.sound.claim(queues, limit + 1, lease, worker)


class MixesQueues(Broken):
    """Asks the queues in the order of the alphabet."""

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        return await self.sound.claim(sorted(queues), limit, lease, worker)


class LeasesForEver(Broken):
    """Never gives a dead worker's task to another one."""

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        return await self.sound.claim(queues, limit, lease + 1_000_000.0, worker)


class ForgetsTheRelease(Broken):
    """Takes a release for a retry."""

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        counted = [msgspec.structs.replace(outcome, released=False) for outcome in outcomes]
        return await self.sound.settle(counted, results)


class ForgetsDependencies(Broken):
    """Runs every task at once."""

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        return await self.sound.add(
            [msgspec.structs.replace(task, depends_on=()) for task in tasks], revive
        )


class CancelsOnlyQueued(Broken):
    """Does not reach what runs."""

    async def transition(self, ids: Sequence[str], to: State) -> list[State | None]:
        tasks = await self.sound.get(ids)
        idle = [task.id for task in tasks if task and task.state is not State.RUNNING]
        await self.sound.transition(idle, to)
        return [task and task.state for task in await self.sound.get(ids)]


class PurgesEverything(Broken):
    """Does not look at the time."""

    async def purge(self, before: float) -> int:
        return await self.sound.purge(1e11)


class NeverWakes(Broken):
    """Waits for the time-out whatever happens."""

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        await asyncio.sleep(timeout)


class Spins(Broken):
    """Wakes all the time."""

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        await asyncio.sleep(0)


class IgnoresRevive(Broken):
    """Keeps what failed."""

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        return await self.sound.add(tasks)


class LastResultWins(Broken):
    """Stores by arrival, not by token."""

    async def put(self, results: Sequence[Result]) -> None:
        await self.sound.purge(0.0, None)
        for result in results:
            await self._forget(result.task_id)
            await self.sound.put([result])

    async def _forget(self, task_id: str) -> None:
        kept = await self.sound.scan(Query())
        tokens = {row["task_id"]: row["token"] for row in kept.table.to_pylist()}
        found = await self.sound.get([Claim(*item) for item in tokens.items()])
        await self.sound.purge(0.0, 1e11)
        await self.sound.put([each for each in found if each and each.task_id != task_id])


class GivesAnyToken(Broken):
    """Hands out the result of another attempt."""

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        rows = (await self.sound.scan(Query())).table.to_pylist()
        tokens = {row["task_id"]: row["token"] for row in rows}
        return await self.sound.get([Claim(c.id, tokens.get(c.id, c.token)) for c in claims])


class IgnoresTheTtl(Broken):
    """Keeps results for ever."""

    async def purge(self, now: float, before: float | None = None) -> int:
        return await self.sound.purge(0.0, before)


class RowsTwice(Broken):
    """Gives what was compacted beside what it was compacted from."""

    async def scan(self, query: Query) -> Scan:
        import pyarrow as pa

        scan = await self.sound.scan(query)
        return Scan(pa.concat_tables([scan.table, scan.table]), scan.files)


class DropsTheFirstMoment(Broken):
    """Reads a half-open range the wrong way round."""

    async def scan(self, query: Query) -> Scan:
        if query.since is not None:
            query = msgspec.structs.replace(query, since=query.since + 0.000001)
        scan = await self.sound.scan(msgspec.structs.replace(query, since=None))
        since = None if query.since is None else round(query.since * 1_000_000)
        moments = next(name for name in ("at", "finished_at") if name in scan.table.column_names)
        kept = [
            since is None or moment is None or moment.timestamp() * 1_000_000 >= since
            for moment in scan.table[moments].to_pylist()
        ]
        return Scan(scan.table.filter(kept))


class KeepsEveryCopy(Broken):
    """Takes an event that is sent twice for two."""

    copies = 0

    async def append(self, events: Sequence[Event]) -> None:
        copied = []
        for event in events:
            self.copies += 1
            copied.append(msgspec.structs.replace(event, id=f"{event.id}#{self.copies}"))
        await self.sound.append(copied)

    async def scan(self, query: Query) -> Scan:
        scan = await self.sound.scan(query)
        ids = [name.partition("#")[0] for name in scan.table["id"].to_pylist()]
        place = scan.table.column_names.index("id")
        return Scan(scan.table.set_column(place, scan.table.schema.field("id"), [ids]))


class LastPutWins(Broken):
    """Replaces a schedule whatever its version."""

    async def put(self, schedule: Schedule, expected_version: int) -> bool:
        found = await self.sound.get(schedule.id)
        return await self.sound.put(schedule, found.version if found else 0)


class FiresThePaused(Broken):
    """Looks at the time only."""

    async def due(self, now: float, limit: int) -> list[Schedule]:
        return [
            found
            for found in await self.sound.list()
            if found.next_fire_at is not None and found.next_fire_at <= now
        ][:limit]


QUEUE, RESULTS = TaskQueueSuite(), ResultStoreSuite()
EVENTS, SCHEDULES = EventStoreSuite(), ScheduleStoreSuite()

Check = Callable[[Any], Coroutine[Any, Any, None]]

QUEUE_BUGS: list[tuple[type[Broken], Check]] = [
    (NoFencing, QUEUE.test_every_verb_refuses_the_token_of_a_lost_lease),
    (NoFencing, QUEUE.test_tokens_grow_through_requeue),
    (NoFencing, QUEUE.test_tokens_from_the_future_or_of_unknown_tasks_are_refused),
    (ExtendsAnything, QUEUE.test_every_verb_refuses_the_token_of_a_lost_lease),
    (ExtendsAnything, QUEUE.test_a_running_task_is_cancelled_and_its_worker_is_told),
    (LastInFirstOut, QUEUE.test_tasks_are_claimed_in_order_of_arrival),
    (NoPriorities, QUEUE.test_higher_priority_goes_first_then_the_time_then_arrival),
    (ClaimsTwice, QUEUE.test_many_coroutines_at_once_get_different_tasks),
    (ClaimsTooMany, QUEUE.test_a_claim_takes_no_more_than_its_limit),
    (MixesQueues, QUEUE.test_queues_are_asked_in_the_order_given_whatever_the_priorities),
    (ForgetsTheRelease, QUEUE.test_a_release_gives_the_attempt_back),
    (ForgetsDependencies, QUEUE.test_a_task_waits_for_all_that_it_depends_on),
    (ForgetsDependencies, QUEUE.test_a_failure_cancels_all_that_depend_on_it),
    (CancelsOnlyQueued, QUEUE.test_a_running_task_is_cancelled_and_its_worker_is_told),
    (PurgesEverything, QUEUE.test_purge_forgets_what_finished_before),
    (PurgesEverything, QUEUE.test_purge_forgets_silent_workers),
    (LeasesForEver, QUEUE.test_a_task_that_takes_its_workers_down_is_given_up),
    (NeverWakes, QUEUE.test_an_add_ends_the_wait),
    (NeverWakes, QUEUE.test_retry_requeue_and_unblocking_end_the_wait),
    (Spins, QUEUE.test_waiting_is_not_spinning),
    (IgnoresRevive, QUEUE.test_a_revived_task_queues_up_at_the_end),
    (RowsTwice, QUEUE.test_a_scan_gives_one_row_for_each_task),
]

RESULT_BUGS: list[tuple[type[Broken], Check]] = [
    (LastResultWins, RESULTS.test_a_zombie_never_replaces_a_newer_attempt),
    (LastResultWins, RESULTS.test_within_one_put_the_newest_counts_too),
    (GivesAnyToken, RESULTS.test_unknown_claims_are_none_in_their_place),
    (GivesAnyToken, RESULTS.test_a_newer_attempt_replaces_the_older_one),
    (IgnoresTheTtl, RESULTS.test_purge_deletes_what_expired),
    (RowsTwice, RESULTS.test_many_small_puts_read_as_one),
    (DropsTheFirstMoment, RESULTS.test_a_scan_filters),
]

EVENT_BUGS: list[tuple[type[Broken], Check]] = [
    (KeepsEveryCopy, EVENTS.test_an_event_is_stored_once_however_often_it_is_appended),
    (RowsTwice, EVENTS.test_an_event_reads_as_it_was_appended),
    (DropsTheFirstMoment, EVENTS.test_a_scan_filters_by_a_half_open_range_of_time),
    (PurgesEverything, EVENTS.test_purge_deletes_what_is_older),
]

SCHEDULE_BUGS: list[tuple[type[Broken], Check]] = [
    (LastPutWins, SCHEDULES.test_only_who_read_the_newest_version_changes_it),
    (LastPutWins, SCHEDULES.test_one_of_many_coroutines_wins_each_version),
    (FiresThePaused, SCHEDULES.test_only_active_schedules_with_a_next_time_are_due),
    (FiresThePaused, SCHEDULES.test_due_gives_the_earliest_first),
]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniq_nb.testing.queue.SOON", 0.5)


async def fails(store: Any, broken: type[Broken], check: Check) -> None:
    """The check passes for the store as it is, and not for the broken one."""
    await store.open()
    try:
        with pytest.raises((AssertionError, TimeoutError)):
            await check(broken(store))
    finally:
        await store.close()


async def passes(store: Any, check: Check) -> None:
    await store.open()
    try:
        await check(Broken(store))
    finally:
        await store.close()


def named(bugs: list[tuple[type[Broken], Check]]) -> list[Any]:
    return [pytest.param(*bug, id=f"{bug[0].__name__}-{bug[1].__name__}") for bug in bugs]


@pytest.mark.parametrize(("broken", "check"), named(QUEUE_BUGS))
async def test_a_broken_queue_is_noticed(broken: type[Broken], check: Check) -> None:
    await passes(MemoryPlace().task_queue(), check)
    await fails(MemoryPlace().task_queue(), broken, check)


@pytest.mark.parametrize(("broken", "check"), named(RESULT_BUGS))
async def test_a_broken_result_store_is_noticed(broken: type[Broken], check: Check) -> None:
    await passes(MemoryPlace().result_storage(), check)
    await fails(MemoryPlace().result_storage(), broken, check)


@pytest.mark.parametrize(("broken", "check"), named(EVENT_BUGS))
async def test_a_broken_event_store_is_noticed(broken: type[Broken], check: Check) -> None:
    await passes(MemoryPlace().event_storage(), check)
    await fails(MemoryPlace().event_storage(), broken, check)


@pytest.mark.parametrize(("broken", "check"), named(SCHEDULE_BUGS))
async def test_a_broken_schedule_store_is_noticed(broken: type[Broken], check: Check) -> None:
    await passes(MemoryPlace().schedule_storage(), check)
    await fails(MemoryPlace().schedule_storage(), broken, check)
