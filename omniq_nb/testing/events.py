"""What every event store is held to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from omniq_nb.errors import StoreClosed
from omniq_nb.models.event import EventType
from omniq_nb.storage.base import EventStore, Query
from omniq_nb.storage.tables import EVENTS, table
from omniq_nb.testing.places import Place, Recipe
from omniq_nb.testing.samples import NEVER, NOON, ODD_NAMES, event, full_event
from omniq_nb.testing.scans import Row, by, column_sets, rows
from omniq_nb.testing.suite import StartProcesses, Suite, drive, in_threads, opened

DAY = 86_400.0


async def read(store: EventStore, query: Query | None = None) -> list[Row]:
    return rows(await store.scan(query or Query()), EVENTS, "at", query)


async def ids(store: EventStore, **query: Any) -> list[str]:
    """Give the ids of the rows, sorted; an id that is there twice is a failure."""
    found = sorted(row["id"] for row in await read(store, Query(**query)))
    assert len(set(found)) == len(found), "an event has two rows"
    return found


class EventStoreSuite(Suite):
    """Held to by every `EventStore`."""

    component = "event_storage"

    @pytest_asyncio.fixture
    async def store(self, place: Place) -> AsyncIterator[EventStore]:
        """Give the store under test, open and empty."""
        async with opened(place.event_storage()) as store:
            yield store

    @pytest_asyncio.fixture
    async def second(self, shared: Recipe) -> AsyncIterator[EventStore]:
        """Give a second client's handle on the same store."""
        async with opened(shared.place().event_storage()) as store:
            yield store

    # ---------------------------------------------------------------- append

    async def test_an_event_reads_as_it_was_appended(self, store: EventStore) -> None:
        appended = [full_event("full"), event("plain")]
        await store.append(appended)
        assert by("id", await read(store)) == table(appended, EVENTS).to_pylist()

    async def test_every_type_of_event_is_kept(self, store: EventStore) -> None:
        await store.append([event(kind.value, type=kind) for kind in EventType])
        assert {row["id"]: row["type"] for row in await read(store)} == {
            kind.value: kind.value for kind in EventType
        }

    async def test_an_event_is_stored_once_however_often_it_is_appended(
        self, store: EventStore
    ) -> None:
        await store.append([event("a"), event("b"), event("a")])
        await store.append([event("b"), event("c")])
        await store.append([event("c", at=NOON + 0.5)])
        assert await ids(store) == ["a", "b", "c"]
        assert await ids(store, columns=("id", "type"), equals={"id": ("b",)}) == ["b"]

    async def test_an_appended_event_may_be_changed_afterwards(self, store: EventStore) -> None:
        mine = event("a", message="one")
        await store.append([mine])
        mine.message = "two"
        (row,) = await read(store)
        assert row["message"] == "one"

    async def test_empty_calls_do_nothing(self, store: EventStore) -> None:
        await store.append([])
        assert await read(store) == []
        assert await store.purge(NEVER) == 0

    @pytest.mark.heavy
    async def test_ten_thousand_events_are_appended_at_once(self, store: EventStore) -> None:
        await store.append([event(f"{n}", at=NOON + n, attempt=n) for n in range(10_000)])
        found = by("at", await read(store))
        assert [row["attempt"] for row in found] == list(range(10_000))
        assert await store.purge(NOON + 4_000) == 4_000
        assert len(await ids(store)) == 6_000

    async def test_many_small_appends_read_as_one(self, store: EventStore) -> None:
        for number in range(150):
            await store.append([event(f"{number}", at=NOON + number * 600)])
        assert len(await ids(store)) == 150
        assert len(await ids(store, since=NOON + 600 * 50, until=NOON + 600 * 60)) == 10

    # ---------------------------------------------------------------- scan

    async def test_times_are_kept_to_the_microsecond(self, store: EventStore) -> None:
        moments = [NOON + n * 0.000001 for n in range(10)] + [0.0, 1.5, NEVER / 10]
        await store.append([event(str(n), at=at) for n, at in enumerate(moments)])
        found = {int(row["id"]): row["at"].timestamp() for row in await read(store)}
        assert found == {n: pytest.approx(at, abs=3e-7) for n, at in enumerate(moments)}

    async def test_a_scan_gives_the_columns_asked_for(self, store: EventStore) -> None:
        appended = [full_event("full"), event("plain")]
        await store.append(appended)
        complete = table(appended, EVENTS).to_pylist()
        for columns in column_sets(EVENTS, ("id",)):
            found = by("id", await read(store, Query(columns=columns)))
            assert found == [{name: row[name] for name in columns} for row in complete]

    async def test_columns_that_do_not_tell_events_apart_are_counted_all_the_same(
        self, store: EventStore
    ) -> None:
        await store.append([event(str(n), task_id=str(n % 2)) for n in range(6)])
        await store.append([event(str(n), task_id=str(n % 2)) for n in range(3, 9)])
        found = await read(store, Query(columns=("task_id",)))
        assert Counter(row["task_id"] for row in found) == {"0": 5, "1": 4}

    async def test_a_scan_of_an_empty_store_has_all_columns(self, store: EventStore) -> None:
        assert await read(store) == []
        assert await read(store, Query(columns=("at", "type"), since=NOON)) == []

    async def test_a_scan_filters_by_a_half_open_range_of_time(self, store: EventStore) -> None:
        moment = [NOON + n * DAY / 2 + n * 0.000001 for n in range(6)]
        for n in (3, 0, 5, 1, 4, 2):
            await store.append([event(str(n), at=moment[n])])
        assert await ids(store, since=moment[4]) == ["4", "5"]
        assert await ids(store, until=moment[2]) == ["0", "1"]
        assert await ids(store, since=moment[1], until=moment[3]) == ["1", "2"]
        assert await ids(store, since=moment[1] + 0.000001, until=moment[2]) == []
        assert await ids(store, since=moment[3], until=moment[1]) == []

    async def test_a_scan_filters_by_values(self, store: EventStore) -> None:
        await store.append(
            [
                event(f"{queue}{n}", queue=queue, batch=f"b{n}", task_id=f"t{n}", at=NOON + n)
                for queue in ("it's", "q")
                for n in range(4)
            ]
        )
        await store.append([event("bare", type=EventType.WORKER_STARTED)])
        assert await ids(store, equals={"queue": ("it's",)}) == [f"it's{n}" for n in range(4)]
        assert await ids(store, equals={"type": ("worker_started",)}) == ["bare"]
        assert await ids(store, equals={"task_id": ("t1", "t2"), "queue": ("q",)}) == ["q1", "q2"]
        assert await ids(store, equals={"batch": ("b3",)}, since=NOON + 3) == ["it's3", "q3"]
        assert await ids(store, equals={"queue": ()}) == []

    # ---------------------------------------------------------------- purge

    async def test_purge_deletes_what_is_older(self, store: EventStore) -> None:
        for day in range(4):
            await store.append([event(f"{day}-{n}", at=NOON + day * DAY + n) for n in range(3)])
        assert await store.purge(NOON) == 0, "at that time is not before it"
        assert await store.purge(NOON + DAY + 1) == 4
        assert await ids(store) == ["1-1", "1-2"] + [f"{d}-{n}" for d in (2, 3) for n in range(3)]
        assert await store.purge(NEVER) == 8
        assert await ids(store) == []
        await store.append([event("new")])
        assert await ids(store) == ["new"]

    async def test_a_repeated_event_is_purged_with_all_its_copies(self, store: EventStore) -> None:
        for _ in range(3):
            await store.append([event("a"), event("b", at=NOON + DAY)])
        await store.purge(NOON + 1)
        assert await ids(store) == ["b"]

    # ---------------------------------------------------------------- odd content

    async def test_odd_text_is_only_text(self, store: EventStore) -> None:
        appended = [
            event(n, task_id=n, name=n, queue=n, batch=n, worker=n, message=n, data=n)
            for n in ODD_NAMES
        ]
        await store.append(appended)
        await store.append(appended)
        expected = table(appended, EVENTS).to_pylist()
        assert by("id", await read(store)) == by("id", expected)
        for name in ODD_NAMES[:12]:
            assert await ids(store, equals={"queue": (name,)}) == [name]

    async def test_a_message_may_have_a_megabyte(self, store: EventStore) -> None:
        await store.append([event("a", message="\u6570" * 1_000_000), event("b")])
        assert {row["id"]: len(row["message"] or "") for row in await read(store)} == {
            "a": 1_000_000,
            "b": 0,
        }

    # ---------------------------------------------------------------- the life of a handle

    async def test_opening_and_closing_twice_is_harmless(self, place: Place) -> None:
        store = place.event_storage()
        await store.open()
        await store.append([event("a")])
        await store.open()
        assert await ids(store) == ["a"]
        await store.close()
        await store.close()

    async def test_a_closed_store_says_so(self, place: Place) -> None:
        store = place.event_storage()
        await store.open()
        await store.close()
        with pytest.raises(StoreClosed):
            await store.append([event("a")])
        with pytest.raises(StoreClosed):
            await store.scan(Query())

    async def test_a_second_client_sees_the_same_events(
        self, store: EventStore, second: EventStore
    ) -> None:
        await store.append([event("a")])
        assert await ids(second) == ["a"]
        await second.append([event("a"), event("b", at=NOON + DAY)])
        assert await ids(store) == await ids(second) == ["a", "b"]
        await second.purge(NOON + 1)
        assert await ids(store) == ["b"]

    async def test_everything_is_still_there_after_a_reopen(self, shared: Recipe) -> None:
        async with opened(shared.place().event_storage()) as store:
            await store.append([full_event("full"), event("plain")])
        async with opened(shared.place().event_storage()) as store:
            await store.append([event("plain"), event("new", at=NOON + 2)])
            found = by("id", await read(store))
            expected = [full_event("full"), event("new", at=NOON + 2), event("plain")]
            assert found == table(expected, EVENTS).to_pylist()

    # ---------------------------------------------------------------- many at once

    async def test_many_coroutines_append_at_once(self, store: EventStore) -> None:
        await asyncio.gather(*(store.append([event("same"), event(str(n))]) for n in range(100)))
        assert await ids(store) == sorted(["same", *map(str, range(100))])

    async def test_a_cancelled_operation_leaves_the_store_usable(self, store: EventStore) -> None:
        for number in range(20):
            pair = [event(f"{number}a"), event(f"{number}b", at=NOON + DAY)]
            for operation in (store.append(pair), store.scan(Query())):
                running = asyncio.ensure_future(operation)
                await asyncio.sleep(number % 10 * 0.0005)
                running.cancel()
                await asyncio.wait([running])
            # What was cancelled may still be on its way, but it comes as a whole or not at all.
            found = await ids(store)
            assert (f"{number}a" in found) == (f"{number}b" in found)
        await store.append([event("after")])
        assert "after" in await ids(store)

    def test_an_immediate_store_works_without_a_loop_and_from_many_threads(
        self, place: Place
    ) -> None:
        store = place.event_storage()
        if not store.immediate:
            return
        drive(store.open())

        def work(thread: int) -> None:
            for number in range(20):
                drive(store.append([event(f"{thread}-{number}"), event(f"same-{number}")]))
                drive(store.scan(Query(since=NOON)))

        try:
            in_threads(4, work)
            found = rows(drive(store.scan(Query())), EVENTS, "at")
            assert len({row["id"] for row in found}) == len(found) == 100
            drive(store.purge(NEVER))
            assert rows(drive(store.scan(Query())), EVENTS, "at") == []
        finally:
            drive(store.close())

    # ---------------------------------------------------------------- many processes

    @pytest.mark.heavy
    async def test_readers_see_each_event_once_while_others_append(
        self, store: EventStore, start: StartProcesses
    ) -> None:
        writers = start(2)
        acknowledged: set[str] = set()
        for number in range(40):
            for place, process in enumerate(writers):
                own = [event(f"{place}-{number}-{n}", at=NOON + number) for n in range(20)]
                process.start("append", [event(f"both-{number}"), *own])
        for number in range(40):
            for place, process in enumerate(writers):
                process.answer()
                acknowledged |= {f"{place}-{number}-{n}" for n in range(20)}
            assert acknowledged <= set(await ids(store)), "an acknowledged event is not visible"
        assert len(await ids(store)) == 2 * 40 * 20 + 40

    async def test_every_acknowledged_event_survives_a_kill(
        self, store: EventStore, start: StartProcesses
    ) -> None:
        for life, writer in enumerate(start(3)):
            batches = [
                [event(f"{life}-{n}-{part}", at=NOON + n * DAY / 10) for part in range(50)]
                for n in range(60)
            ]
            for batch in batches[: 20 * (life + 1)]:
                writer.start("append", batch)
            writer.answer()
            writer.kill()
            acknowledged = 1 + len(writer.last_words())
            found = set(await ids(store))
            for n, batch in enumerate(batches):
                stored = sum(each.id in found for each in batch)
                assert stored == 50 or n >= acknowledged, f"batch {n} of {acknowledged} was lost"
                assert stored in (0, 50), f"batch {n} is there in part"
            await store.append([event(f"{life}")])
            assert f"{life}" in await ids(store)
