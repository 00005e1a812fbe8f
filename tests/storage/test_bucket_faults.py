"""A journal and segments in a bucket, when requests fail, answers are lost and others write."""

import asyncio
import itertools
import random
import time

import pytest

from omniq_nb.errors import StoreUnavailable
from omniq_nb.models.task import Settle, State
from omniq_nb.storage.base import Query
from omniq_nb.storage.buckets import connection, log
from omniq_nb.storage.journal import replica
from omniq_nb.testing import Recipe
from omniq_nb.testing.clouds import KINDS, Faults, World
from omniq_nb.testing.comparison import compare_random_histories
from omniq_nb.testing.samples import event, result, task


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(connection, "LAST_PAUSE", 0.01)


@pytest.fixture
def restless(monkeypatch):
    """Checkpoints all the time, and nothing stays that a checkpoint covers."""
    monkeypatch.setattr(replica, "CHECKPOINT_ENTRIES", 3)
    monkeypatch.setattr(log, "TRIM_AFTER", 0.0)


class Writers:
    """A queue that sends each call through another client of the same bucket."""

    def __init__(self, queues, seed):
        self._queues = queues
        self._random = random.Random(seed)

    async def open(self):
        await asyncio.gather(*(queue.open() for queue in self._queues))

    async def close(self):
        await asyncio.gather(*(queue.close() for queue in self._queues))

    def __getattr__(self, name):
        return getattr(self._random.choice(self._queues), name)


class Crowd:
    """A bucket with faults, and three clients."""

    def __init__(self, seed):
        self._world = World(Faults(0.1, seed))
        self._seed = seed

    def task_queue(self):
        return Writers([self._world.place().task_queue() for _ in range(3)], self._seed)


def test_several_writers_with_faults_agree_with_the_machine(restless):
    seeds = itertools.count()
    compare_random_histories(
        lambda: Recipe("tests.storage.test_bucket_faults:Crowd", (next(seeds),)), examples=15
    )


# ---------------------------------------------------------------- one fault at a time


async def opened(world, count):
    queues = [world.place().task_queue() for _ in range(count)]
    for queue in queues:
        await queue.open()
    return queues


async def closed(queues):
    for queue in queues:
        await queue.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_happens_to_requests_each_task_is_settled_once(kind):
    world = World()
    queues = await opened(world, 4)
    world.faults = Faults(0.2, 1, [kind])
    for number in range(40):
        assert await queues[number % 4].add([task(f"t{number}")]) == [True]

    async def work(queue, name):
        settled = []
        while tasks := await queue.claim(["default"], 3, 600.0, name):
            outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in tasks]
            settled += [
                one.id for one, ok in zip(tasks, await queue.settle(outcomes), strict=True) if ok
            ]
        return settled

    settled = await asyncio.gather(*(work(queue, f"w{n}") for n, queue in enumerate(queues)))
    assert sorted(itertools.chain(*settled)) == sorted(f"t{number}" for number in range(40))
    assert world.faults.met[kind] > 0
    await closed(queues)


async def test_a_server_that_stays_away_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", 0.1)
    world = World()
    (queue,) = await opened(world, 1)
    world.faults = Faults(1.0, 1, ["before"])
    with pytest.raises(StoreUnavailable, match="the bucket s3://b: ConnectionError"):
        await queue.add([task("t")])
    world.faults = Faults()
    assert await queue.add([task("t")]) == [True]
    await closed([queue])


async def test_a_zombie_that_wakes_after_trimming_changes_nothing_by_it(restless):
    world = World()
    zombie, other = await opened(world, 2)
    await zombie.add([task("t")])
    (held,) = await zombie.claim(["default"], 1, -1.0, "zombie")  # its lease is over at once
    (again,) = await other.claim(["default"], 1, 600.0, "other")
    for number in range(30):
        await other.add([task(f"more{number}")])
    entries = [path for path in world.objects if path.startswith("b/queue/log/")]
    assert len(entries) < 15, "the log was trimmed"
    assert await zombie.settle([Settle(id="t", token=held.token, to=State.FAILED)]) == [False]
    assert await other.settle([Settle(id="t", token=again.token, to=State.SUCCEEDED)]) == [True]
    assert await zombie.add([task("late")]) == [True]
    (found,) = await other.get(["late"])
    assert found is not None
    await closed([zombie, other])


async def test_a_write_that_arrives_after_trimming_is_published_again(restless):
    """The zombie's own entry gets a number that was trimmed: nobody would ever read it."""
    world = World()
    zombie, other = await opened(world, 2)
    await zombie.add([task("first")])
    frozen = asyncio.Event()
    thawed = asyncio.Event()

    class Frozen(Faults):
        async def meet(self, send):
            if asyncio.current_task().get_name() == "zombie" and not frozen.is_set():
                frozen.set()
                await thawed.wait()
            return await send()

    world.faults = Frozen()
    adding = asyncio.create_task(zombie.add([task("late")]), name="zombie")
    await frozen.wait()
    for number in range(30):
        await other.add([task(f"more{number}")])
    thawed.set()
    assert await adding == [True]
    (found,) = await other.get(["late"])
    assert found is not None
    await closed([zombie, other])


async def test_readers_see_each_row_once_while_others_write_and_compact():
    world = World(Faults(0.03, 4))
    writer, compactor, reader = (world.place() for _ in range(3))
    stores = [place.event_storage() for place in (writer, compactor, reader)]
    stores += [place.result_storage() for place in (writer, compactor, reader)]
    for store in stores:
        await store.open()
    events, results = stores[:3], stores[3:]
    put = 0
    done = asyncio.Event()

    async def write():
        nonlocal put
        for number in range(40):
            await events[0].append([event(f"e{number}")])
            await results[0].put([result(f"t{number}")])
            put = number + 1
        done.set()

    async def compact():
        while not done.is_set():
            await events[1].compact()
            await results[1].compact()

    async def read():
        while not done.is_set():
            least = put
            for store, column in ((events[2], "id"), (results[2], "task_id")):
                seen = await ids(store, column)
                assert len(seen) == len(set(seen)), "a row was seen twice"
                assert len(seen) >= least, "a row was not seen"

    async with asyncio.TaskGroup() as group:
        for work in (write, compact, read):
            group.create_task(work())
    assert len(await ids(events[2], "id")) == len(await ids(results[2], "task_id")) == 40
    for store in stores:
        await store.close()


async def ids(store, column):
    import pyarrow.parquet as pq

    scan = await store.scan(Query(columns=(column,)))
    found = scan.table[column].to_pylist()
    for file in scan.files:
        found += pq.read_table(file, columns=[column])[column].to_pylist()
    return found


@pytest.mark.parametrize("ahead", [-30.0, 30.0])
async def test_leases_are_told_by_the_clouds_clock_when_ours_is_wrong(ahead, monkeypatch):
    world = World()
    right, wrong = world.place().task_queue(), world.place().task_queue()
    await right.open()
    world.ahead = ahead  # as if the clock of who connects next were wrong by as much
    await wrong.open()
    world.ahead = 0.0
    assert right._replica.log.ahead == 0
    assert wrong._replica.log.ahead == pytest.approx(ahead, abs=5)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - ahead)
    wrongly = wrong._replica.now()
    monkeypatch.undo()
    assert wrongly == pytest.approx(time.time(), abs=5)
    await right.add([task("t")])
    assert await right.claim(["default"], 1, 15.0, "right")
    monkeypatch.setattr(time, "time", lambda: clock() - ahead)
    assert await wrong.claim(["default"], 1, 15.0, "wrong") == [], "its lease holds"
    monkeypatch.undo()
    await closed([right, wrong])


@pytest.mark.parametrize("ahead", [-30.0, 30.0])
async def test_whoever_waits_tells_what_is_due_by_the_clouds_clock_when_ours_is_wrong(
    ahead, monkeypatch
):
    world = World()
    world.ahead = ahead  # as if the clock of who connects next were wrong by as much
    place = world.place()
    queue = place.task_queue()
    await queue.open()
    world.ahead = 0.0
    clock = time.time
    await queue.add([task("soon", available_at=clock() + 15)])
    monkeypatch.setattr(time, "time", lambda: clock() - ahead)
    before = place.connection.usage
    await queue.wait(["default"], 0.0)
    assert place.connection.usage.reads > before.reads, "it is not due: there may be news"
    monkeypatch.setattr(time, "time", lambda: clock() - ahead + 20)
    before = place.connection.usage
    await queue.wait(["default"], 5.0)
    assert place.connection.usage == before, "it is due: nothing need be asked"
    monkeypatch.undo()
    await queue.close()


async def test_what_others_wrote_just_now_is_not_abandoned_because_our_clock_is_days_ahead(
    monkeypatch,
):
    world = World()
    days = 3 * 86400.0
    world.ahead = -days  # as if the clock of who connects next were wrong by as much
    place = world.place()
    queue = place.task_queue()
    await queue.open()
    world.ahead = 0.0
    await queue.put_bundle("bundle", b"needed soon")
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + days)
    await queue.purge(0.0)
    monkeypatch.undo()
    assert await queue.get_bundle("bundle") == b"needed soon"
    await queue.close()


async def test_whoever_opens_a_bucket_need_not_read_many_entries(monkeypatch):
    monkeypatch.setattr(replica, "CHECKPOINT_ENTRIES", 100)
    world = World()
    (queue,) = await opened(world, 1)
    for number in range(90):
        await queue.add([task(f"t{number}")])
    newest = max(path for path in world.objects if path.startswith("b/queue/checkpoints/"))
    entries = [path for path in world.objects if path.startswith("b/queue/log/")]
    assert len(entries) == 90
    covered = int(newest.rpartition("/")[2].partition(".")[0])
    assert 90 - covered <= 100 / 4 * 2 + 1
    await closed([queue])


async def test_what_is_quiet_is_asked_about_less_than_once_a_second():
    """Not after ten seconds of quiet here, but after as many as it says."""
    world = World()
    place = world.place()
    queue, schedules = place.task_queue(), place.schedule_storage()
    await queue.open()
    await schedules.open()
    for store in (queue, schedules):
        store._replica._changed_at -= 60
    before = sum(place.connection.usage)
    started = time.monotonic()
    while time.monotonic() < started + 5:
        if not await queue.claim(["default"], 1, 60.0, "w"):
            await queue.wait(["default"], 5.0)
        assert await schedules.due(time.time(), 10) == []
    asked = sum(place.connection.usage) - before
    assert asked <= time.monotonic() - started
    another = world.place().task_queue()
    await another.open()
    await another.add([task("t")])
    while not await queue.claim(["default"], 1, 60.0, "w"):
        await queue.wait(["default"], 5.0)
    for store in (queue, schedules, another):
        await store.close()


# ---------------------------------------------------------------- without conditional writes


async def test_a_bucket_without_conditional_writes_is_refused_for_tasks_and_schedules():
    world = World(conditional=False)
    place = world.place()
    for store in (place.task_queue(), place.schedule_storage()):
        with pytest.raises(StoreUnavailable, match="two workers would run one task"):
            await store.open()


async def test_it_still_serves_results_and_events():
    world = World(conditional=False)
    place = world.place()
    results, events = place.result_storage(), place.event_storage()
    await results.open()
    await events.open()
    await results.put([result("t")])
    await events.append([event("e")])
    assert await ids(results, "task_id") == ["t"]
    assert await ids(events, "id") == ["e"]
    with pytest.raises(Exception, match="conditional writes"):
        await events.compact()
    assert "none" in (await place.promises())["exclusion"]
    await results.close()
    await events.close()
