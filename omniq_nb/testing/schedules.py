"""What every schedule store is held to."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from omniq_nb.errors import StoreClosed
from omniq_nb.models.schedule import Schedule, ScheduleState, ScheduleType
from omniq_nb.storage.base import ScheduleStore
from omniq_nb.testing.places import Place, Recipe
from omniq_nb.testing.samples import NEVER, NOON, ODD_NAMES, full_task, schedule
from omniq_nb.testing.suite import StartProcesses, Suite, drive, in_threads, opened


def stored(given: Schedule, version: int) -> Schedule:
    """Give the schedule as the store must have it."""
    return msgspec.structs.replace(given, version=version)


def full_schedule(id: str) -> Schedule:
    """Make a schedule whose every field differs from its default."""
    return schedule(
        id,
        type=ScheduleType.CRON,
        template=full_task("template"),
        cron="*/5 8-18 * * MON-FRI",
        every=90.5,
        at=NOON + 7,
        timezone="Europe/Berlin",
        starts_at=NOON - 5,
        state=ScheduleState.PAUSED,
        next_fire_at=NOON + 0.123456,
        last_fire_at=NOON - 300.25,
        created_at=NOON - 1_000,
    )


async def due(store: ScheduleStore, now: float = NOON, limit: int = 100) -> list[str]:
    return [found.id for found in await store.due(now, limit)]


class ScheduleStoreSuite(Suite):
    """Held to by every `ScheduleStore`."""

    component = "schedule_storage"

    @pytest_asyncio.fixture
    async def store(self, place: Place) -> AsyncIterator[ScheduleStore]:
        """Give the store under test, open and empty."""
        async with opened(place.schedule_storage()) as store:
            yield store

    @pytest_asyncio.fixture
    async def second(self, shared: Recipe) -> AsyncIterator[ScheduleStore]:
        """Give a second client's handle on the same store."""
        async with opened(shared.place().schedule_storage()) as store:
            yield store

    # ---------------------------------------------------------------- put and get

    async def test_a_schedule_comes_back_as_it_was_put(self, store: ScheduleStore) -> None:
        given = full_schedule("full")
        assert await store.put(given, 0)
        found = await store.get("full")
        assert found == stored(given, 1)
        assert found is not None
        assert found.template.call == bytes(range(256)), "the template keeps its call"

    async def test_an_unknown_schedule_is_none(self, store: ScheduleStore) -> None:
        assert await store.get("unknown") is None
        assert await store.list() == []
        assert await due(store, NEVER) == []

    async def test_a_schedule_is_created_once(self, store: ScheduleStore) -> None:
        assert await store.put(schedule("a", every=1.0), 0)
        assert not await store.put(schedule("a", every=2.0), 0)
        assert await store.get("a") == stored(schedule("a", every=1.0), 1)

    async def test_only_who_read_the_newest_version_changes_it(self, store: ScheduleStore) -> None:
        assert not await store.put(schedule("a"), 1), "there is nothing to replace"
        assert await store.put(schedule("a", every=1.0), 0)
        assert await store.put(schedule("a", every=2.0), 1)
        for stale in (0, 1, 3, 99):
            assert not await store.put(schedule("a", every=9.0), stale)
        assert await store.get("a") == stored(schedule("a", every=2.0), 2)

    async def test_the_version_counts_whatever_the_schedule_claims(
        self, store: ScheduleStore
    ) -> None:
        assert await store.put(schedule("a", version=77), 0)
        assert await store.put(schedule("a", version=0), 1)
        found = await store.get("a")
        assert found is not None
        assert found.version == 2

    async def test_a_stored_schedule_may_be_changed_afterwards(self, store: ScheduleStore) -> None:
        mine = schedule("a")
        await store.put(mine, 0)
        mine.every, mine.template.name = 1.0, "mine"
        found = await store.get("a")
        assert found == stored(schedule("a"), 1)
        found.every, found.template.name = 2.0, "found"
        for listed in (await store.list(), await store.due(NOON, 9)):
            listed[0].every, listed[0].template.name = 3.0, "listed"
        assert await store.get("a") == stored(schedule("a"), 1)

    async def test_a_removed_schedule_is_gone_and_may_come_again(
        self, store: ScheduleStore
    ) -> None:
        await store.put(schedule("a"), 0)
        await store.put(schedule("b"), 0)
        assert await store.remove("a")
        assert not await store.remove("a")
        assert not await store.remove("unknown")
        assert await store.get("a") is None
        assert await due(store) == ["b"]
        assert not await store.put(schedule("a"), 1), "who read it before comes too late"
        assert await store.put(schedule("a", every=5.0), 0)
        assert await store.get("a") == stored(schedule("a", every=5.0), 1)

    async def test_all_are_listed_by_id(self, store: ScheduleStore) -> None:
        for id in ("b", "a10", "B", "a", "a2"):
            state = ScheduleState.PAUSED if id == "a" else ScheduleState.DONE
            await store.put(schedule(id, state=state, next_fire_at=None), 0)
        assert [found.id for found in await store.list()] == ["B", "a", "a10", "a2", "b"]
        assert {found.version for found in await store.list()} == {1}

    # ---------------------------------------------------------------- due

    async def test_due_gives_the_earliest_first(self, store: ScheduleStore) -> None:
        for id, moment in (("c", NOON), ("a", NOON - 1), ("later", NOON + 0.001), ("b", NOON - 2)):
            await store.put(schedule(id, next_fire_at=moment), 0)
        assert await due(store) == ["b", "a", "c"]
        assert await due(store, limit=2) == ["b", "a"]
        assert await due(store, NOON - 1.5) == ["b"]
        assert await due(store, NOON - 3) == []

    async def test_only_active_schedules_with_a_next_time_are_due(
        self, store: ScheduleStore
    ) -> None:
        await store.put(schedule("active"), 0)
        await store.put(schedule("paused", state=ScheduleState.PAUSED), 0)
        await store.put(schedule("done", state=ScheduleState.DONE), 0)
        await store.put(schedule("never", next_fire_at=None), 0)
        assert await due(store) == ["active"]

    async def test_a_fired_schedule_is_due_at_its_next_time(self, store: ScheduleStore) -> None:
        await store.put(schedule("a"), 0)
        (found,) = await store.due(NOON, 9)
        assert found == stored(schedule("a"), 1)
        fired = msgspec.structs.replace(found, next_fire_at=NOON + 60, last_fire_at=NOON)
        assert await store.put(fired, found.version)
        assert await due(store) == []
        assert await due(store, NOON + 60) == ["a"]

    async def test_pausing_and_resuming(self, store: ScheduleStore) -> None:
        await store.put(schedule("a"), 0)
        await store.put(schedule("a", state=ScheduleState.PAUSED), 1)
        assert await due(store) == []
        await store.put(schedule("a"), 2)
        assert await due(store) == ["a"]

    # ---------------------------------------------------------------- odd content

    async def test_odd_ids_are_only_ids(self, store: ScheduleStore) -> None:
        for name in ODD_NAMES:
            assert await store.put(schedule(name), 0)
            assert not await store.put(schedule(name), 0)
        assert {found.id for found in await store.list()} == set(ODD_NAMES)
        assert set(await due(store)) == set(ODD_NAMES)
        for name in ODD_NAMES:
            assert await store.get(name) == stored(schedule(name), 1)
            assert await store.remove(name)
        assert await store.list() == []

    async def test_a_template_may_be_large(self, store: ScheduleStore) -> None:
        template = msgspec.structs.replace(full_task("template"), call=b"\0\xff" * 1_000_000)
        await store.put(schedule("a", template=template), 0)
        found = await store.get("a")
        assert found is not None
        assert found.template == template

    async def test_hundreds_of_schedules(self, store: ScheduleStore) -> None:
        for number in range(300):
            await store.put(schedule(f"{number:03}", next_fire_at=NOON - number), 0)
        assert await due(store, limit=3) == ["299", "298", "297"]
        assert [found.id for found in await store.list()] == [f"{n:03}" for n in range(300)]

    # ---------------------------------------------------------------- the life of a handle

    async def test_opening_and_closing_twice_is_harmless(self, place: Place) -> None:
        store = place.schedule_storage()
        await store.open()
        await store.put(schedule("a"), 0)
        await store.open()
        assert await due(store) == ["a"]
        await store.close()
        await store.close()

    async def test_a_closed_store_says_so(self, place: Place) -> None:
        store = place.schedule_storage()
        await store.open()
        await store.close()
        with pytest.raises(StoreClosed):
            await store.put(schedule("a"), 0)
        with pytest.raises(StoreClosed):
            await store.due(NOON, 1)

    async def test_a_second_client_sees_the_same_schedules(
        self, store: ScheduleStore, second: ScheduleStore
    ) -> None:
        assert await store.put(schedule("a"), 0)
        assert not await second.put(schedule("a"), 0)
        assert await second.put(schedule("a", every=2.0), 1)
        assert not await store.put(schedule("a", every=3.0), 1), "the other was faster"
        assert await store.get("a") == await second.get("a") == stored(schedule("a", every=2.0), 2)
        assert await second.remove("a")
        assert await store.get("a") is None
        assert await store.list() == await store.due(NOON, 9) == []

    async def test_everything_is_still_there_after_a_reopen(self, shared: Recipe) -> None:
        async with opened(shared.place().schedule_storage()) as store:
            await store.put(full_schedule("full"), 0)
            await store.put(schedule("twice"), 0)
            await store.put(schedule("twice", every=2.0), 1)
            await store.put(schedule("gone"), 0)
            await store.remove("gone")
        async with opened(shared.place().schedule_storage()) as store:
            assert await store.list() == [
                stored(full_schedule("full"), 1),
                stored(schedule("twice", every=2.0), 2),
            ]
            assert not await store.put(schedule("twice"), 1)

    # ---------------------------------------------------------------- many at once

    async def test_one_of_many_coroutines_wins_each_version(self, store: ScheduleStore) -> None:
        for version in range(5):
            won = await asyncio.gather(
                *(store.put(schedule("a", every=float(n)), version) for n in range(1, 9))
            )
            assert sum(won) == 1
            found = await store.get("a")
            assert found is not None
            assert (found.every, found.version) == (won.index(True) + 1.0, version + 1)

    async def test_a_cancelled_operation_leaves_the_store_usable(
        self, store: ScheduleStore
    ) -> None:
        for number in range(20):
            for operation in (store.put(schedule(f"{number}"), 0), store.list()):
                running = asyncio.ensure_future(operation)
                await asyncio.sleep(number % 10 * 0.0005)
                running.cancel()
                await asyncio.wait([running])
        assert await store.put(schedule("after"), 0)
        assert "after" in await due(store)

    def test_an_immediate_store_works_without_a_loop_and_from_many_threads(
        self, place: Place
    ) -> None:
        store = place.schedule_storage()
        if not store.immediate:
            return
        drive(store.open())

        def work(thread: int) -> list[bool]:
            drive(store.list())
            return [drive(store.put(schedule("a"), version)) for version in range(20)]

        try:
            won = [version for wins in in_threads(4, work) for version in wins]
            found = drive(store.get("a"))
            assert found is not None
            assert sum(won) == found.version > 0
            assert drive(store.list()) == drive(store.due(NOON, 9)) == [found]
            assert drive(store.remove("a"))
        finally:
            drive(store.close())

    # ---------------------------------------------------------------- many processes

    async def test_one_of_eight_processes_wins_each_version(
        self, store: ScheduleStore, start: StartProcesses
    ) -> None:
        processes = start(8)
        for process in processes:
            process.run("list")  # all are up before the race
        for version in range(6):
            for number, process in enumerate(processes):
                process.start("put", schedule("a", every=number + 1.0), version)
            won = [process.answer() for process in processes]
            assert sum(won) == 1
            found = await store.get("a")
            assert found is not None
            assert (found.every, found.version) == (won.index(True) + 1.0, version + 1)

    async def test_every_acknowledged_schedule_survives_a_kill(
        self, store: ScheduleStore, start: StartProcesses
    ) -> None:
        for life, writer in enumerate(start(2)):
            given = [schedule(f"{life}-{n:03}") for n in range(100)]
            for each in given[: 50 * (life + 1)]:
                writer.start("put", each, 0)
            writer.answer()
            writer.kill()
            acknowledged = 1 + len(writer.last_words())
            known = {found.id for found in await store.list()}
            assert {each.id for each in given[:acknowledged]} <= known
            assert await store.put(schedule(f"{life}"), 0)
