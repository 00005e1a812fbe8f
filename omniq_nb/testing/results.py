"""What every result store is held to."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from omniq_nb.errors import StoreClosed
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, State
from omniq_nb.storage.base import Query, ResultStore
from omniq_nb.storage.tables import RESULTS, table
from omniq_nb.testing.places import Place, Recipe
from omniq_nb.testing.samples import (
    MEGABYTES_50,
    NEVER,
    NOON,
    ODD_NAMES,
    full_result,
    result,
)
from omniq_nb.testing.scans import Row, by, column_sets, rows
from omniq_nb.testing.suite import StartProcesses, Suite, drive, in_threads, opened

DAY = 86_400.0


def claim_of(stored: Result) -> Claim:
    return Claim(stored.task_id, stored.token)


async def read(store: ResultStore, query: Query | None = None) -> list[Row]:
    return rows(await store.scan(query or Query()), RESULTS, "finished_at", query)


async def tokens(store: ResultStore) -> dict[str, int]:
    """Give the token of each row; two rows of one task are a failure."""
    found = await read(store, Query(columns=("task_id", "token")))
    by_task = {row["task_id"]: row["token"] for row in found}
    assert len(by_task) == len(found), "a task has two rows"
    return by_task


class ResultStoreSuite(Suite):
    """Held to by every `ResultStore`."""

    component = "result_storage"

    @pytest_asyncio.fixture
    async def store(self, place: Place) -> AsyncIterator[ResultStore]:
        """Give the store under test, open and empty."""
        async with opened(place.result_storage()) as store:
            yield store

    @pytest_asyncio.fixture
    async def second(self, shared: Recipe) -> AsyncIterator[ResultStore]:
        """Give a second client's handle on the same store."""
        async with opened(shared.place().result_storage()) as store:
            yield store

    # ---------------------------------------------------------------- one by one

    async def test_a_result_comes_back_as_it_was_put(self, store: ResultStore) -> None:
        full, plain = full_result("full"), result("plain")
        await store.put([full, plain])
        assert await store.get([claim_of(full), claim_of(plain)]) == [full, plain]

    async def test_unknown_claims_are_none_in_their_place(self, store: ResultStore) -> None:
        await store.put([result("a", 3)])
        asked = [Claim("x", 1), Claim("a", 3), Claim("a", 2), Claim("a", 4), Claim("a", 3)]
        found = await store.get(asked)
        assert [each is not None for each in found] == [False, True, False, False, True]

    async def test_a_stored_result_may_be_changed_afterwards(self, store: ResultStore) -> None:
        mine = result("a", value="1")
        await store.put([mine])
        mine.value = "2"
        (found,) = await store.get([Claim("a", 1)])
        assert found is not None
        assert found.value == "1"
        found.value = "3"
        assert await store.get([Claim("a", 1)]) == [result("a", value="1")]

    async def test_empty_calls_do_nothing(self, store: ResultStore) -> None:
        await store.put([])
        assert await store.get([]) == []
        assert await read(store) == []
        assert await store.purge(NEVER, NEVER) == 0

    # ---------------------------------------------------------------- one counts

    async def test_a_newer_attempt_replaces_the_older_one(self, store: ResultStore) -> None:
        await store.put([result("a", 1, state=State.FAILED, error="no")])
        await store.put([result("a", 2, value="2")])
        assert await store.get([Claim("a", 1), Claim("a", 2)]) == [None, result("a", 2, value="2")]
        assert await tokens(store) == {"a": 2}

    async def test_a_zombie_never_replaces_a_newer_attempt(self, store: ResultStore) -> None:
        await store.put([result("a", 2, value="2"), result("b", 1)])
        await store.put([result("a", 1, value="zombie", finished_at=NOON + DAY), result("c", 1)])
        assert await store.get([Claim("a", 1), Claim("a", 2)]) == [None, result("a", 2, value="2")]
        assert await tokens(store) == {"a": 2, "b": 1, "c": 1}

    async def test_within_one_put_the_newest_counts_too(self, store: ResultStore) -> None:
        await store.put([result("a", 1), result("a", 3), result("a", 2), result("b", 10)])
        await store.put([result("b", 9), result("b", 11)])
        found = await store.get([Claim("a", 3), Claim("b", 11), Claim("a", 2), Claim("b", 10)])
        assert [each is not None for each in found] == [True, True, False, False]
        assert await tokens(store) == {"a": 3, "b": 11}

    async def test_putting_the_same_result_again_changes_nothing(self, store: ResultStore) -> None:
        for _ in range(3):
            await store.put([full_result("a", 2)])
        assert await store.get([Claim("a", 2)]) == [full_result("a", 2)]
        assert await tokens(store) == {"a": 2}

    async def test_attempts_that_finished_on_different_days_are_one_row(
        self, store: ResultStore
    ) -> None:
        for token in range(1, 6):
            days = (2, 0, 4, 1, 3)[token - 1]
            await store.put([result("a", token, finished_at=NOON + days * DAY)])
        assert await tokens(store) == {"a": 5}
        (row,) = await read(store)
        assert row["finished_at"].timestamp() == NOON + 3 * DAY
        later = Query(since=NOON + 3.5 * DAY)
        assert await read(store, later) == [], "a superseded row does not come back by a filter"

    async def test_results_without_times_are_kept(self, store: ResultStore) -> None:
        bare = Result(task_id="a", token=1, name="n", state=State.CANCELLED)
        await store.put([bare])
        assert await store.get([Claim("a", 1)]) == [bare]
        assert await tokens(store) == {"a": 1}

    # ---------------------------------------------------------------- scan

    async def test_a_scan_gives_one_row_for_each_task(self, store: ResultStore) -> None:
        stored = [full_result("full"), result("plain")]
        await store.put(stored)
        assert by("task_id", await read(store)) == table(stored, RESULTS).to_pylist()

    async def test_a_scan_gives_the_columns_asked_for(self, store: ResultStore) -> None:
        stored = [full_result("full"), result("plain")]
        await store.put(stored)
        complete = table(stored, RESULTS).to_pylist()
        for columns in column_sets(RESULTS, ("task_id",)):
            found = by("task_id", await read(store, Query(columns=columns)))
            assert found == [{name: row[name] for name in columns} for row in complete]

    async def test_a_scan_of_an_empty_store_has_all_columns(self, store: ResultStore) -> None:
        assert await read(store) == []
        assert await read(store, Query(columns=("state",), equals={"state": ("x",)})) == []

    async def test_a_scan_filters(self, store: ResultStore) -> None:
        moment = [NOON + n * DAY / 2 + n * 0.000001 for n in range(5)]
        for n in range(5):
            some = (result(f"{q}{n}", queue=q, batch=f"b{n}", finished_at=moment[n]) for q in "x'")
            await store.put(list(some))
        await store.put([result("failed", state=State.FAILED, finished_at=moment[4])])

        async def found(**query: Any) -> list[str]:
            return sorted(row["task_id"] for row in await read(store, Query(**query)))

        assert await found(since=moment[3]) == ["'3", "'4", "failed", "x3", "x4"]
        assert await found(until=moment[1]) == ["'0", "x0"]
        assert await found(since=moment[1], until=moment[2]) == ["'1", "x1"]
        assert await found(since=moment[2] + 0.000001, until=moment[3]) == []
        assert await found(equals={"queue": ("'",), "batch": ("b0", "b3")}) == ["'0", "'3"]
        assert await found(equals={"state": ("failed",)}) == ["failed"]
        assert await found(equals={"task_id": ("x1", "x2")}, since=moment[2]) == ["x2"]
        assert await found(equals={"queue": ()}) == []

    # ---------------------------------------------------------------- purge

    async def test_purge_deletes_what_expired(self, store: ResultStore) -> None:
        for expires_at, name in ((NOON, "over"), (NOON + 2 * DAY, "later"), (None, "kept")):
            await store.put([result(name, expires_at=expires_at)])
        assert await store.purge(NOON - 1) == 0
        assert await store.purge(NOON) == 1, "at that time it is over"
        assert await tokens(store) == {"later": 1, "kept": 1}
        assert await store.get([Claim("over", 1)]) == [None]
        assert await store.purge(NOON + 5 * DAY) == 1
        assert await tokens(store) == {"kept": 1}

    async def test_purge_deletes_what_finished_before(self, store: ResultStore) -> None:
        for day in range(4):
            finished_at = NOON + day * DAY
            await store.put([result(f"{day}-{n}", finished_at=finished_at + n) for n in range(3)])
        assert await store.purge(0.0, NOON) == 0, "at that time is not before it"
        assert await store.purge(0.0, NOON + DAY + 1) == 4
        assert sorted(await tokens(store)) == ["1-1", "1-2"] + [
            f"{day}-{n}" for day in (2, 3) for n in range(3)
        ]
        assert await store.purge(0.0, NEVER) == 8
        assert await store.get([Claim("1-1", 1)]) == [None]

    async def test_a_purged_attempt_does_not_bring_an_older_one_back(
        self, store: ResultStore
    ) -> None:
        await store.put([result("a", 1, finished_at=NOON + 5 * DAY), result("b")])
        await store.put([result("a", 2, finished_at=NOON, expires_at=NOON)])
        assert await store.purge(NOON) == 1
        assert await tokens(store) == {"b": 1}
        assert await store.get([Claim("a", 1), Claim("a", 2)]) == [None, None]

    async def test_a_superseded_ttl_no_longer_counts(self, store: ResultStore) -> None:
        await store.put([result("a", 1, expires_at=NOON)])
        await store.put([result("a", 2)])
        assert await store.purge(NOON + 1) == 0
        assert await tokens(store) == {"a": 2}

    # ---------------------------------------------------------------- odd content

    async def test_odd_names_are_only_names(self, store: ResultStore) -> None:
        stored = [
            result(n, name=n, queue=n, batch=n, worker=n, error=n, value=n, output=n, traceback=n)
            for n in ODD_NAMES
        ]
        await store.put(stored)
        await store.put(stored)
        assert await store.get([claim_of(each) for each in stored]) == stored
        expected = table(stored, RESULTS).to_pylist()
        assert by("task_id", await read(store)) == by("task_id", expected)
        for name in ODD_NAMES[:12]:
            (row,) = await read(store, Query(equals={"queue": (name,)}))
            assert row["task_id"] == name

    async def test_payloads_are_bytes_whatever_they_hold(self, store: ResultStore) -> None:
        payloads = [b"", b"\0", bytes(range(256)) * 1_000, b"\xff\xfe\r\n", b"PAR1"]
        stored = [result(str(n), payload=payload) for n, payload in enumerate(payloads)]
        await store.put(stored)
        found = await store.get([claim_of(each) for each in stored])
        assert [each and each.payload for each in found] == payloads

    @pytest.mark.heavy
    async def test_a_payload_may_have_fifty_megabytes(self, store: ResultStore) -> None:
        big = random.Random(0).randbytes(MEGABYTES_50)
        await store.put([result("before"), result("big", payload=big), result("after")])
        (found,) = await store.get([Claim("big", 1)])
        assert found is not None
        assert found.payload == big
        assert await tokens(store) == {"before": 1, "big": 1, "after": 1}
        await store.put([result("big", 2, payload=b"small")])
        assert await store.get([Claim("big", 1)]) == [None]
        assert await store.purge(NEVER, NEVER) == 3

    @pytest.mark.heavy
    async def test_ten_thousand_results_go_in_and_out_in_one_call(self, store: ResultStore) -> None:
        stored = [result(f"task-{n}", payload=b"%d" % n, value=str(n)) for n in range(10_000)]
        await store.put(stored)
        asked = [claim_of(each) for each in stored]
        random.Random(0).shuffle(asked)
        found = await store.get(asked)
        assert [each and each.payload for each in found] == [
            claim.id.removeprefix("task-").encode() for claim in asked
        ]
        assert len(await tokens(store)) == 10_000
        assert await store.purge(0.0, NEVER) == 10_000

    async def test_many_small_puts_read_as_one(self, store: ResultStore) -> None:
        for number in range(150):
            await store.put([result(f"{number}"), result("again", number + 1)])
        assert await tokens(store) == {**{f"{n}": 1 for n in range(150)}, "again": 150}
        found = await store.get([Claim(f"{n}", 1) for n in range(150)])
        assert None not in found

    # ---------------------------------------------------------------- the life of a handle

    async def test_opening_and_closing_twice_is_harmless(self, place: Place) -> None:
        store = place.result_storage()
        await store.open()
        await store.put([result("a")])
        await store.open()
        assert await store.get([Claim("a", 1)]) == [result("a")]
        await store.close()
        await store.close()

    async def test_a_closed_store_says_so(self, place: Place) -> None:
        store = place.result_storage()
        await store.open()
        await store.close()
        with pytest.raises(StoreClosed):
            await store.put([result("a")])
        with pytest.raises(StoreClosed):
            await store.get([Claim("a", 1)])

    async def test_a_second_client_sees_the_same_results(
        self, store: ResultStore, second: ResultStore
    ) -> None:
        await store.put([result("a", 1), result("b", 1)])
        assert await second.get([Claim("a", 1)]) == [result("a", 1)]
        await second.put([result("a", 2), result("c", 1)])
        found = await store.get([Claim("a", 1), Claim("a", 2), Claim("c", 1)])
        assert found == [None, result("a", 2), result("c", 1)]
        assert await tokens(store) == await tokens(second) == {"a": 2, "b": 1, "c": 1}
        assert await second.purge(0.0, NEVER) == 3
        assert await store.get([Claim("a", 2), Claim("b", 1)]) == [None, None]
        assert await tokens(store) == {}

    async def test_everything_is_still_there_after_a_reopen(self, shared: Recipe) -> None:
        stored = [full_result("full"), result("plain"), result("big", payload=b"x" * 2_000_000)]
        async with opened(shared.place().result_storage()) as store:
            await store.put([result("full", 1), *stored])
        async with opened(shared.place().result_storage()) as store:
            assert await store.get([claim_of(each) for each in stored]) == stored
            await store.put([full_result("full", 1)])
            assert await tokens(store) == {"full": 2, "plain": 1, "big": 1}

    # ---------------------------------------------------------------- many at once

    async def test_many_coroutines_put_at_once(self, store: ResultStore) -> None:
        await asyncio.gather(
            *(store.put([result("same", n + 1), result(str(n))]) for n in range(100))
        )
        assert await tokens(store) == {"same": 100, **{str(n): 1 for n in range(100)}}

    async def test_a_cancelled_operation_leaves_the_store_usable(self, store: ResultStore) -> None:
        for number in range(20):
            pair = [result(f"{number}a"), result(f"{number}b", payload=b"x" * 2_000_000)]
            for operation in (store.put(pair), store.scan(Query()), store.get([Claim("0a", 1)])):
                running = asyncio.ensure_future(operation)
                await asyncio.sleep(number % 10 * 0.0005)
                running.cancel()
                await asyncio.wait([running])
            # What was cancelled may still be on its way, but it comes as a whole or not at all.
            found = await tokens(store)
            assert (f"{number}a" in found) == (f"{number}b" in found)
        await store.put([result("after")])
        assert await store.get([Claim("after", 1)]) == [result("after")]

    def test_an_immediate_store_works_without_a_loop_and_from_many_threads(
        self, place: Place
    ) -> None:
        store = place.result_storage()
        if not store.immediate:
            return
        drive(store.open())

        def work(thread: int) -> None:
            for number in range(20):
                own = result(f"{thread}-{number}", payload=b"x" * 1_500_000 * (number == 0))
                drive(store.put([own, result("same", number * 4 + thread)]))
                assert drive(store.get([claim_of(own)])) == [own]

        try:
            in_threads(4, work)
            found = rows(drive(store.scan(Query())), RESULTS, "finished_at")
            assert len(found) == 81
            assert drive(store.get([Claim("same", 79)])) == [result("same", 79)]
            assert drive(store.purge(0.0, NEVER)) == 81
        finally:
            drive(store.close())

    # ---------------------------------------------------------------- many processes

    async def test_processes_that_put_attempts_of_one_task_leave_the_newest(
        self, store: ResultStore, start: StartProcesses
    ) -> None:
        processes = start(3)
        for number in range(20):
            for place, process in enumerate(processes):
                token = number * 3 + place + 1
                own = result(f"{place}-{number}", payload=b"x" * 1_000)
                process.start("put", [result("same", token, value=str(token)), own])
        for process in processes:
            for _ in range(20):
                process.answer()
        found = await tokens(store)
        assert found == {"same": 60, **{f"{p}-{n}": 1 for p in range(3) for n in range(20)}}
        assert await store.get([Claim("same", 60)]) == [result("same", 60, value="60")]

    @pytest.mark.heavy
    async def test_readers_see_each_result_once_while_others_write(
        self, store: ResultStore, start: StartProcesses
    ) -> None:
        writers = start(2)
        acknowledged: set[str] = set()
        for number in range(40):
            for place, process in enumerate(writers):
                some = [result(f"{place}-{number}-{n}", number + 1) for n in range(20)]
                process.start("put", [result(f"again-{place}", number + 1), *some])
        for number in range(40):
            for place, process in enumerate(writers):
                process.answer()
                acknowledged |= {f"{place}-{number}-{n}" for n in range(20)}
            found = await tokens(store)
            assert acknowledged <= found.keys(), "an acknowledged result is not visible"
            assert found["again-0"] > number, "an older attempt came back"
        assert len(await tokens(store)) == 2 * 40 * 20 + 2

    async def test_every_acknowledged_result_survives_a_kill(
        self, store: ResultStore, start: StartProcesses
    ) -> None:
        for life, writer in enumerate(start(3)):
            batches = [
                [result(f"{life}-{n}-{part}", payload=b"%d" % part * 300) for part in range(50)]
                for n in range(60)
            ]
            for batch in batches[: 20 * (life + 1)]:
                writer.start("put", batch)
            writer.answer()
            writer.kill()
            acknowledged = 1 + len(writer.last_words())
            found = await store.get([claim_of(each) for batch in batches for each in batch])
            for n, batch in enumerate(batches):
                part = found[50 * n : 50 * (n + 1)]
                assert part == batch or n >= acknowledged, f"batch {n} of {acknowledged} was lost"
                assert part in (batch, [None] * 50), f"batch {n} is there in part"
            await store.put([result(f"{life}")])
            assert (await tokens(store)).keys() >= {f"{life}"}

    async def test_a_default_purge_at_the_present_keeps_what_has_not_expired(
        self, store: ResultStore
    ) -> None:
        now = time.time()
        await store.put([result("a", expires_at=now + DAY), result("b", expires_at=now - 1)])
        assert await store.purge(now) == 1
        assert await tokens(store) == {"a": 1}
