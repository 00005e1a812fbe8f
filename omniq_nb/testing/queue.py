"""What every task queue is held to. The exact model is `omniq_nb.machine`."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from omniq_nb.errors import OmniQError, StoreClosed
from omniq_nb.machine import (
    CANCELLED_ERROR,
    EXPIRED_ERROR,
    LOST_ERROR,
    MAX_LOST,
    dependency_error,
)
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo
from omniq_nb.storage.base import BUNDLE_KEPT, Query, TaskQueue
from omniq_nb.storage.tables import TASKS, table
from omniq_nb.testing.comparison import compare_random_histories
from omniq_nb.testing.places import Place, Recipe
from omniq_nb.testing.processes import drain
from omniq_nb.testing.samples import (
    MEGABYTES_50,
    NEVER,
    NOON,
    ODD_NAMES,
    OVER,
    full_task,
    result,
    task,
)
from omniq_nb.testing.scans import Row, by, column_sets, rows
from omniq_nb.testing.suite import StartProcesses, Suite, drive, in_threads, opened, until

LONG = 600.0
"""A lease that no test outlives."""

SOON = 20.0
"""A wake-up that is not a mere time-out comes within so many seconds, on the slowest machine."""


async def claim(
    queue: TaskQueue, limit: int = 100, queues: Sequence[str] = ("default",), lease: float = LONG
) -> list[Task]:
    return await queue.claim(queues, limit, lease, "worker-1")


async def claim_one(queue: TaskQueue, lease: float = LONG) -> Task:
    held = await claim(queue, limit=1, lease=lease)
    assert held, "no task is due"
    return held[0]


async def states(queue: TaskQueue, *ids: str) -> list[State | None]:
    return [found.state if found else None for found in await queue.get(ids)]


async def get_one(queue: TaskQueue, id: str) -> Task:
    (found,) = await queue.get([id])
    assert found is not None
    return found


async def read(queue: TaskQueue, query: Query | None = None) -> list[Row]:
    return rows(await queue.scan(query or Query()), TASKS, "created_at", query)


def ids(tasks: Sequence[Task]) -> list[str]:
    return [found.id for found in tasks]


def settles(held: Task, to: State, **fields: Any) -> Settle:
    return Settle(id=held.id, token=held.token, to=to, **fields)


async def finish(queue: TaskQueue, held: Task, to: State, **fields: Any) -> bool:
    (accepted,) = await queue.settle([settles(held, to, **fields)])
    return accepted


async def add_finished(queue: TaskQueue, id: str, to: State) -> Task:
    """Bring a new task into a final state, by way of a claim where there is one."""
    expires_at = NOON if to is State.EXPIRED else None
    await queue.add([task(id, queue="finished", expires_at=expires_at)])
    (held,) = await claim(queue, queues=["finished"])
    if to is not State.EXPIRED:
        assert await finish(queue, held, to, error="ValueError: no")
    return held


class TaskQueueSuite(Suite):
    """Held to by every `TaskQueue`."""

    component = "task_queue"

    @pytest_asyncio.fixture
    async def queue(self, place: Place) -> AsyncIterator[TaskQueue]:
        """Give the queue under test, open and empty."""
        async with opened(place.task_queue()) as queue:
            yield queue

    @pytest_asyncio.fixture
    async def second(self, shared: Recipe) -> AsyncIterator[TaskQueue]:
        """Give a second client's handle on the same queue."""
        async with opened(shared.place().task_queue()) as queue:
            yield queue

    # ---------------------------------------------------------------- adding

    async def test_an_added_task_comes_back_as_it_was_submitted(self, queue: TaskQueue) -> None:
        submitted = full_task("t")
        assert await queue.add([submitted]) == [True]
        (held,) = await claim(queue, queues=["other"])
        for name in submitted.__struct_fields__[:19]:
            if name != "available_at":  # now the lease's deadline
                assert getattr(held, name) == getattr(submitted, name), name
        found = await get_one(queue, "t")
        assert found.call == b""
        assert (found.tags, found.retry) == (submitted.tags, submitted.retry)
        assert found.bundles == submitted.bundles

    async def test_an_id_is_added_once(self, queue: TaskQueue) -> None:
        assert await queue.add([task("a"), task("b"), task("a")]) == [True, True, False]
        assert await queue.add([task("b", name="newer"), task("c")]) == [False, True]
        assert (await get_one(queue, "b")).name == "demo.work"
        assert ids(await claim(queue)) == ["a", "b", "c"]

    async def test_an_id_stays_known_whatever_became_of_its_task(self, queue: TaskQueue) -> None:
        for final in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED):
            await add_finished(queue, final.value, final)
            assert await queue.add([task(final.value)]) == [False]
            assert await states(queue, final.value) == [final]

    async def test_what_the_submitter_says_of_the_queues_own_fields_is_ignored(
        self, queue: TaskQueue
    ) -> None:
        boast = {"state": State.SUCCEEDED, "attempt": 5, "token": 9, "lost": 3, "worker": "me"}
        await queue.add([task("t", started_at=1.0, finished_at=2.0, error="no", **boast)])
        found = await get_one(queue, "t")
        assert (found.state, found.attempt, found.token) == (State.QUEUED, 0, 0)
        assert (found.lost, found.worker, found.error) == (0, None, None)
        assert (found.started_at, found.finished_at) == (None, None)

    async def test_a_submitted_task_may_be_changed_afterwards(self, queue: TaskQueue) -> None:
        mine = task("t")
        await queue.add([mine])
        mine.name = "changed"
        found = await get_one(queue, "t")
        assert (found.name, mine.seq) == ("demo.work", 0)
        found.state = State.FAILED
        held = await claim_one(queue)
        held.token, held.state = 99, State.CANCELLED
        found = await get_one(queue, "t")
        assert (found.state, found.token) == (State.RUNNING, 1)

    @pytest.mark.parametrize("impossible", [{"name": "\ud800"}, {"priority": 2**80}])
    async def test_a_batch_with_an_impossible_task_is_added_as_a_whole_or_not_at_all(
        self, queue: TaskQueue, impossible: dict[str, Any]
    ) -> None:
        try:
            await queue.add([task("good"), task("bad", **impossible), task("good, too")])
        except (ValueError, OverflowError, OmniQError):
            assert await queue.get(["good", "bad", "good, too"]) == [None] * 3
            assert await queue.add([task("good")]) == [True], "the queue is unharmed"
        else:
            assert None not in await queue.get(["good", "bad", "good, too"])

    @pytest.mark.parametrize("final", [State.FAILED, State.CANCELLED, State.EXPIRED])
    async def test_revive_replaces_a_task_that_had_no_success(
        self, queue: TaskQueue, final: State
    ) -> None:
        held = await add_finished(queue, "t", final)
        assert await queue.add([task("t", name="newer", priority=3)], revive=True) == [True]
        found = await get_one(queue, "t")
        assert (found.name, found.priority, found.queue) == ("newer", 3, "default")
        assert (found.state, found.attempt, found.error) == (State.QUEUED, 0, None)
        again = await claim_one(queue)
        assert again.token == held.token + 1, "a token is never given twice"
        assert again.attempt == 1

    async def test_revive_leaves_live_and_succeeded_tasks_alone(self, queue: TaskQueue) -> None:
        await add_finished(queue, "succeeded", State.SUCCEEDED)
        await queue.add([task("running")])
        await claim_one(queue)
        await queue.add([task("queued"), task("blocked", depends_on=("queued",))])
        newer = [
            task(id, name="newer") for id in ("succeeded", "running", "queued", "blocked", "new")
        ]
        assert await queue.add(newer, revive=True) == [False, False, False, False, True]
        assert (await get_one(queue, "queued")).name == "demo.work"

    async def test_a_revived_task_queues_up_at_the_end(self, queue: TaskQueue) -> None:
        await queue.add([task("a"), task("b")])
        await queue.transition(["a"], State.CANCELLED)
        await queue.add([task("a")], revive=True)
        assert ids(await claim(queue)) == ["b", "a"]

    async def test_empty_calls_do_nothing(self, queue: TaskQueue) -> None:
        assert await queue.add([]) == []
        assert await queue.settle([]) == []
        assert await queue.extend([], LONG) == []
        assert await queue.get([]) == []
        assert await queue.transition([], State.CANCELLED) == []
        await queue.add([task("t")])
        assert await queue.claim([], 10, LONG, "w") == []
        assert await queue.claim(["default"], 0, LONG, "w") == []
        assert await states(queue, "t") == [State.QUEUED]

    # ---------------------------------------------------------------- order

    async def test_tasks_are_claimed_in_order_of_arrival(self, queue: TaskQueue) -> None:
        await queue.add([task("c"), task("a")])
        await queue.add([task("b")])
        assert ids(await claim(queue, limit=2)) == ["c", "a"]
        assert ids(await claim(queue, limit=2)) == ["b"]

    async def test_higher_priority_goes_first_then_the_time_then_arrival(
        self, queue: TaskQueue
    ) -> None:
        await queue.add(
            [
                task("late", available_at=NOON + 1),
                task("early", available_at=NOON),
                task("early, too", available_at=NOON),
                task("low", priority=-1, available_at=NOON - 9),
                task("high", priority=1, available_at=NOON + 9),
                task("highest", priority=2**31, available_at=NOON + 9),
                task("lowest", priority=-(2**31), available_at=0.0),
            ]
        )
        expected = ["highest", "high", "early", "early, too", "late", "low", "lowest"]
        assert ids(await claim(queue)) == expected

    async def test_queues_are_asked_in_the_order_given_whatever_the_priorities(
        self, queue: TaskQueue
    ) -> None:
        await queue.add(
            [
                task("a1", queue="a"),
                task("b1", queue="b", priority=9),
                task("a2", queue="a", priority=1),
                task("c1", queue="c", priority=99),
                task("b2", queue="b"),
            ]
        )
        assert ids(await claim(queue, limit=3, queues=["b", "a"])) == ["b1", "b2", "a2"]
        assert ids(await claim(queue, queues=["c", "b", "a"])) == ["c1", "a1"]

    async def test_only_the_queues_asked_for_are_touched(self, queue: TaskQueue) -> None:
        await queue.add([task("mine", queue="mine"), task("theirs", queue="theirs")])
        assert ids(await claim(queue, queues=["mine", "unknown"])) == ["mine"]
        assert await states(queue, "theirs") == [State.QUEUED]

    async def test_a_claim_takes_no_more_than_its_limit(self, queue: TaskQueue) -> None:
        await queue.add([task(str(number)) for number in range(7)])
        assert [len(await claim(queue, limit=3)) for _ in range(4)] == [3, 3, 1, 0]

    async def test_a_claimed_task_shows_who_holds_it(self, queue: TaskQueue) -> None:
        before = time.time()
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert held.call == b"t"
        for seen in (held, await get_one(queue, "t")):
            assert (seen.state, seen.attempt, seen.token) == (State.RUNNING, 1, 1)
            assert seen.worker == "worker-1"
            assert seen.started_at is not None
            assert before - 30 < seen.started_at < time.time() + 30
            assert before + LONG - 30 < seen.available_at < time.time() + LONG + 30

    async def test_a_delayed_task_waits_for_its_time(self, queue: TaskQueue) -> None:
        soon = time.time() + 0.3
        await queue.add([task("later", available_at=NEVER), task("soon", available_at=soon)])
        assert await claim(queue) == [] or time.time() >= soon
        assert ids(await until(lambda: claim(queue), "the delayed task is due")) == ["soon"]
        assert time.time() >= soon - 0.001
        assert await states(queue, "later") == [State.QUEUED]

    @pytest.mark.heavy
    async def test_ten_thousand_tasks_are_added_at_once_and_each_is_run_once(
        self, queue: TaskQueue
    ) -> None:
        names = [f"task-{number}" for number in range(10_000)]
        assert await queue.add([task(name) for name in names]) == [True] * 10_000
        assert await queue.counts() == {("default", State.QUEUED): 10_000}
        claimed: list[str] = []
        while held := await claim(queue, limit=1_000):
            claimed += ids(held)
            accepted = await queue.settle([settles(each, State.SUCCEEDED) for each in held])
            assert all(accepted)
        assert claimed == names, "each once, in order of arrival"
        assert await queue.counts() == {("default", State.SUCCEEDED): 10_000}
        assert await queue.purge(NEVER) == 10_000
        assert await queue.counts() == {}

    # ---------------------------------------------------------------- leases and tokens

    async def test_an_ended_lease_makes_the_task_due_again(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        first = await claim_one(queue, lease=0.2)
        again = (await until(lambda: claim(queue), "the lease is over"))[0]
        assert time.time() >= first.available_at
        assert (again.attempt, again.token, again.lost) == (2, 2, 1)
        assert await claim(queue) == []

    async def test_an_extended_lease_holds(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue, lease=0.3)
        assert await queue.extend([held.claim], LONG) == [True]
        await asyncio.sleep(0.4)
        assert await claim(queue) == []
        assert (await get_one(queue, "t")).available_at > time.time() + LONG - 60
        assert await finish(queue, held, State.SUCCEEDED)

    async def test_what_a_worker_holds_is_known(self, queue: TaskQueue) -> None:
        await queue.add([task(id) for id in ("held", "lapsed", "done", "theirs", "queued")])
        (held,) = await queue.claim(["default"], 1, LONG, "me")
        (lapsed,) = await queue.claim(["default"], 1, OVER, "me")
        (done,) = await queue.claim(["default"], 1, LONG, "me")
        (theirs,) = await queue.claim(["default"], 1, LONG, "them")
        assert await finish(queue, done, State.SUCCEEDED)
        assert sorted(await queue.held_by("me")) == [held.claim, lapsed.claim]
        assert await queue.held_by("them") == [theirs.claim]
        assert await queue.held_by("nobody") == []

    async def test_a_lease_can_be_ended_and_who_waits_is_woken(
        self, queue: TaskQueue, second: TaskQueue
    ) -> None:
        async def taken(by: TaskQueue) -> Task:
            while True:
                await by.wait(["default"], LONG)
                if tasks := await claim(by):
                    return tasks[0]

        await queue.add([task("t")])
        held = await claim_one(queue)
        for waiting in (queue, second):
            taking = asyncio.create_task(taken(waiting))
            await asyncio.sleep(0.1)
            assert not taking.done()
            assert await queue.extend([held.claim], 0.0) == [True]
            again = await asyncio.wait_for(taking, SOON)
            assert (again.token, again.lost) == (held.token + 1, held.lost + 1)
            assert await queue.extend([held.claim], 0.0) == [False]
            held = again

    async def test_a_late_worker_may_still_finish_while_nobody_else_has_claimed(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("a"), task("b")])
        first, other = await claim(queue, lease=OVER)
        assert await queue.extend([first.claim], LONG) == [True]
        assert await finish(queue, other, State.SUCCEEDED)
        assert await claim(queue) == []

    async def test_every_verb_refuses_the_token_of_a_lost_lease(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        zombie = await claim_one(queue, lease=OVER)
        owner = await claim_one(queue)
        assert await queue.extend([zombie.claim], LONG) == [False]
        for to in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED):
            assert not await finish(queue, zombie, to)
        assert not await finish(queue, zombie, State.QUEUED, released=True)
        found = await get_one(queue, "t")
        assert (found.state, found.token) == (State.RUNNING, owner.token)
        assert await finish(queue, owner, State.SUCCEEDED)

    async def test_a_claim_is_settled_once(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert await finish(queue, held, State.FAILED, error="ValueError: first")
        assert not await finish(queue, held, State.SUCCEEDED)
        assert await queue.extend([held.claim], LONG) == [False]
        found = await get_one(queue, "t")
        assert (found.state, found.error) == (State.FAILED, "ValueError: first")

    async def test_tokens_from_the_future_or_of_unknown_tasks_are_refused(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("running"), task("queued", available_at=NEVER)])
        held = await claim_one(queue)
        wrong = [
            Claim("running", held.token + 1),
            Claim("running", 0),
            Claim("queued", 0),
            Claim("unknown", 1),
        ]
        assert await queue.extend(wrong, LONG) == [False] * 4
        outcomes = [Settle(id=id, token=token, to=State.SUCCEEDED) for id, token in wrong]
        for outcome in outcomes:
            assert await queue.settle([outcome]) == [False]
        assert await states(queue, "running", "queued") == [State.RUNNING, State.QUEUED]

    async def test_a_stale_outcome_does_not_spoil_the_others_of_its_batch(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("a"), task("b"), task("c")])
        a, b, c = await claim(queue)
        await queue.transition(["b"], State.CANCELLED)
        kept = await queue.extend([a.claim, b.claim, c.claim], LONG)
        assert kept == [True, False, True]
        outcomes = [settles(each, State.SUCCEEDED) for each in (a, b, c)]
        assert await queue.settle(outcomes) == [True, False, True]
        expected = [State.SUCCEEDED, State.CANCELLED, State.SUCCEEDED]
        assert await states(queue, "a", "b", "c") == expected

    async def test_tokens_grow_through_requeue(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        first = await claim_one(queue)
        await finish(queue, first, State.FAILED)
        await queue.transition(["t"], State.QUEUED)
        second = await claim_one(queue)
        assert second.token > first.token
        assert not await finish(queue, first, State.SUCCEEDED)
        assert await states(queue, "t") == [State.RUNNING]

    async def test_a_task_that_takes_its_workers_down_is_given_up(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        for number in range(MAX_LOST):
            held = await claim_one(queue, lease=OVER)
            assert (held.state, held.lost) == (State.RUNNING, number)
        (over,) = await claim(queue)
        assert (over.state, over.error) == (State.FAILED, LOST_ERROR)
        assert await claim(queue) == [], "it is reported once"
        assert await states(queue, "t") == [State.FAILED]

    # ---------------------------------------------------------------- settling

    async def test_a_success_is_final(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert await finish(queue, held, State.SUCCEEDED, started_at=NOON, finished_at=NOON + 1)
        found = await get_one(queue, "t")
        assert (found.state, found.attempt, found.worker) == (State.SUCCEEDED, 1, "worker-1")
        assert (found.started_at, found.finished_at) == (NOON, NOON + 1)
        assert await claim(queue) == []

    async def test_a_settled_task_without_times_finished_now(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        assert await finish(queue, await claim_one(queue), State.SUCCEEDED)
        finished_at = (await get_one(queue, "t")).finished_at
        assert finished_at is not None
        assert abs(finished_at - time.time()) < 60

    async def test_a_retry_waits_for_its_time_and_counts_the_attempt(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("later"), task("now")])
        later, now = await claim(queue)
        fields = {"error": "ValueError: once", "started_at": NOON, "finished_at": NOON + 1}
        assert await finish(queue, later, State.QUEUED, available_at=NEVER, **fields)
        assert await finish(queue, now, State.QUEUED, available_at=NOON, **fields)
        found = await get_one(queue, "later")
        assert (found.state, found.attempt, found.lost) == (State.QUEUED, 1, 0)
        assert (found.error, found.available_at) == ("ValueError: once", NEVER)
        assert (found.started_at, found.finished_at) == (NOON, NOON + 1)
        again = await claim_one(queue)
        assert (again.id, again.attempt, again.token, again.lost) == ("now", 2, 2, 0)

    async def test_a_release_gives_the_attempt_back(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert await finish(queue, held, State.QUEUED, released=True)
        found = await get_one(queue, "t")
        assert (found.state, found.attempt, found.token) == (State.QUEUED, 0, 1)
        assert found.started_at is None
        again = await claim_one(queue)
        assert (again.attempt, again.token, again.lost) == (1, 2, 0)

    async def test_a_failed_task_is_a_dead_letter_until_it_is_requeued(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert await finish(queue, held, State.FAILED, error="ValueError: no")
        assert await claim(queue) == []
        found = await get_one(queue, "t")
        assert (found.state, found.error) == (State.FAILED, "ValueError: no")
        assert await queue.transition(["t"], State.QUEUED) == [State.QUEUED]
        found = await get_one(queue, "t")
        assert (found.attempt, found.lost, found.error) == (0, 0, None)
        assert (found.started_at, found.finished_at) == (None, None)
        again = await claim_one(queue)
        assert (again.attempt, again.token, again.call) == (1, 2, b"t")

    async def test_outcomes_and_results_are_committed_together(self, place: Place) -> None:
        async with opened(place.task_queue()) as queue, opened(place.result_storage()) as results:
            if not queue.commits_with(results):
                return  # the engine then puts them itself, first
            await queue.add([task("good"), task("stale"), task("bare")])
            good, stale, bare = await claim(queue)
            await queue.transition(["stale"], State.CANCELLED)
            accepted = await queue.settle(
                [settles(each, State.SUCCEEDED) for each in (good, stale, bare)],
                [result("good", good.token, payload=b"42"), result("stale", stale.token)],
            )
            assert accepted == [True, False, True]
            found = await results.get([good.claim, stale.claim, bare.claim])
            assert found == [result("good", good.token, payload=b"42"), None, None]

    async def test_it_commits_with_no_store_of_another_place(
        self, new_recipe: Callable[[], Recipe]
    ) -> None:
        here, there = new_recipe().place(), new_recipe().place()
        async with opened(here.task_queue()) as queue, opened(there.result_storage()) as results:
            assert not queue.commits_with(results)

    # ---------------------------------------------------------------- time to live

    async def test_a_task_past_its_ttl_expires_and_is_reported_once(self, queue: TaskQueue) -> None:
        await queue.add([task("old", expires_at=NOON), task("good", expires_at=NEVER)])
        old, good = await claim(queue)
        assert (old.id, old.state, old.error) == ("old", State.EXPIRED, EXPIRED_ERROR)
        assert (good.id, good.state) == ("good", State.RUNNING)
        assert (old.attempt, old.token) == (0, 0)
        assert await claim(queue) == []
        assert await states(queue, "old") == [State.EXPIRED]

    async def test_a_started_task_does_not_expire_while_it_runs(self, queue: TaskQueue) -> None:
        ends = time.time() + 0.5
        await queue.add([task("t", expires_at=ends)])
        held = await claim_one(queue)
        if held.state is State.EXPIRED:
            assert time.time() >= ends
            return
        await asyncio.sleep(0.6)
        assert await queue.transition(["t"], State.EXPIRED) == [State.RUNNING]
        assert await claim(queue) == []
        assert await finish(queue, held, State.SUCCEEDED)

    async def test_expiry_by_hand_needs_the_time_to_be_over(self, queue: TaskQueue) -> None:
        await queue.add(
            [
                task("over", expires_at=NOON, available_at=NEVER),
                task("blocked", expires_at=NOON, depends_on=("over", "not yet")),
                task("not yet", expires_at=NEVER),
                task("no ttl"),
            ]
        )
        names = ["not yet", "no ttl", "over", "blocked", "unknown"]
        assert await queue.transition(names, State.EXPIRED) == [
            State.QUEUED,
            State.QUEUED,
            State.EXPIRED,
            State.CANCELLED,  # with the task that it depends on
            None,
        ]

    async def test_who_requeues_an_expired_task_wants_it_run(self, queue: TaskQueue) -> None:
        await queue.add([task("t", expires_at=NOON)])
        await claim(queue)
        assert await queue.transition(["t"], State.QUEUED) == [State.QUEUED]
        assert (await claim_one(queue)).state is State.RUNNING

    # ---------------------------------------------------------------- transitions by hand

    async def test_a_queued_task_is_cancelled(self, queue: TaskQueue) -> None:
        await queue.add([task("t"), task("later", available_at=NEVER)])
        cancelled = await queue.transition(["t", "later"], State.CANCELLED)
        assert cancelled == [State.CANCELLED] * 2
        found = await get_one(queue, "t")
        assert found.error == CANCELLED_ERROR
        assert found.finished_at is not None
        assert await claim(queue) == []

    async def test_a_running_task_is_cancelled_and_its_worker_is_told(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        assert await queue.transition(["t"], State.CANCELLED) == [State.CANCELLED]
        assert await queue.extend([held.claim], LONG) == [False]
        assert not await finish(queue, held, State.SUCCEEDED)
        assert await states(queue, "t") == [State.CANCELLED]

    async def test_the_canceller_may_add_the_result_itself(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        held = await claim_one(queue)
        await queue.transition(["t"], State.CANCELLED)
        assert (await get_one(queue, "t")).token > held.token, "so a zombie's result cannot win"

    @pytest.mark.parametrize(
        ("final", "to", "after"),
        [
            (State.SUCCEEDED, State.CANCELLED, State.SUCCEEDED),
            (State.FAILED, State.CANCELLED, State.FAILED),
            (State.CANCELLED, State.CANCELLED, State.CANCELLED),
            (State.EXPIRED, State.CANCELLED, State.EXPIRED),
            (State.SUCCEEDED, State.QUEUED, State.SUCCEEDED),
            (State.FAILED, State.QUEUED, State.QUEUED),
            (State.CANCELLED, State.QUEUED, State.QUEUED),
            (State.EXPIRED, State.QUEUED, State.QUEUED),
            (State.SUCCEEDED, State.EXPIRED, State.SUCCEEDED),
            (State.CANCELLED, State.EXPIRED, State.CANCELLED),
        ],
    )
    async def test_a_final_task_moves_only_where_it_may(
        self, queue: TaskQueue, final: State, to: State, after: State
    ) -> None:
        await add_finished(queue, "t", final)
        assert await queue.transition(["t", "unknown"], to) == [after, None]
        assert await states(queue, "t") == [after]

    async def test_live_tasks_cannot_be_requeued(self, queue: TaskQueue) -> None:
        await queue.add([task("running")])
        held = await claim_one(queue)
        await queue.add([task("queued", available_at=NEVER)])
        await queue.add([task("blocked", depends_on=("queued",))])
        assert await queue.transition(["running", "queued", "blocked"], State.QUEUED) == [
            State.RUNNING,
            State.QUEUED,
            State.BLOCKED,
        ]
        assert (await get_one(queue, "queued")).available_at == NEVER
        assert await finish(queue, held, State.SUCCEEDED)

    # ---------------------------------------------------------------- dependencies

    async def test_a_task_waits_for_all_that_it_depends_on(self, queue: TaskQueue) -> None:
        await queue.add([task("child", depends_on=("a", "b")), task("a"), task("b")])
        assert await states(queue, "child") == [State.BLOCKED]
        a, b = await claim(queue)
        await finish(queue, a, State.SUCCEEDED)
        assert await claim(queue) == []
        assert await states(queue, "child") == [State.BLOCKED]
        await finish(queue, b, State.SUCCEEDED)
        assert await states(queue, "child") == [State.QUEUED]
        assert ids(await claim(queue)) == ["child"]

    async def test_a_dependency_that_succeeded_before_holds_nobody_up(
        self, queue: TaskQueue
    ) -> None:
        await add_finished(queue, "done", State.SUCCEEDED)
        await queue.add([task("child", depends_on=("done",))])
        assert ids(await claim(queue)) == ["child"]

    @pytest.mark.parametrize("final", [State.FAILED, State.CANCELLED, State.EXPIRED])
    async def test_a_dependency_that_had_failed_before_cancels_at_once(
        self, queue: TaskQueue, final: State
    ) -> None:
        await add_finished(queue, "gone", final)
        assert await queue.add([task("child", depends_on=("gone",))]) == [True]
        child = await get_one(queue, "child")
        assert (child.state, child.error) == (State.CANCELLED, dependency_error("gone"))
        assert child.finished_at is not None
        assert await claim(queue) == []

    async def test_an_unknown_dependency_blocks_until_it_is_added(self, queue: TaskQueue) -> None:
        await queue.add([task("child", depends_on=("to come",))])
        assert await claim(queue) == []
        await queue.add([task("to come")])
        await finish(queue, await claim_one(queue), State.SUCCEEDED)
        assert ids(await claim(queue)) == ["child"]

    async def test_a_retry_of_the_dependency_keeps_the_others_waiting(
        self, queue: TaskQueue
    ) -> None:
        await queue.add([task("a"), task("child", depends_on=("a",))])
        await finish(queue, await claim_one(queue), State.QUEUED, available_at=NOON)
        assert await states(queue, "child") == [State.BLOCKED]
        await finish(queue, await claim_one(queue), State.SUCCEEDED)
        assert ids(await claim(queue)) == ["child"]

    async def test_a_failure_cancels_all_that_depend_on_it(self, queue: TaskQueue) -> None:
        await queue.add(
            [
                task("root"),
                task("child", depends_on=("root",)),
                task("grandchild", depends_on=("child", "root")),
                task("bystander", depends_on=("elsewhere",)),
            ]
        )
        await finish(queue, await claim_one(queue), State.FAILED)
        cancelled = [State.CANCELLED] * 2
        assert await states(queue, "child", "grandchild") == cancelled
        assert await states(queue, "bystander") == [State.BLOCKED]
        assert (await get_one(queue, "child")).error == dependency_error("root")

    async def test_cancelling_cascades_too(self, queue: TaskQueue) -> None:
        await queue.add([task("a"), task("b", depends_on=("a",)), task("c", depends_on=("b",))])
        await queue.transition(["a"], State.CANCELLED)
        assert await states(queue, "a", "b", "c") == [State.CANCELLED] * 3
        assert await queue.transition(["b"], State.QUEUED) == [State.CANCELLED], "a still failed"
        requeued = await queue.transition(["a", "b", "c"], State.QUEUED)
        assert requeued == [State.QUEUED, State.BLOCKED, State.BLOCKED]

    @pytest.mark.heavy
    async def test_long_chains_and_wide_fans_are_followed_to_the_end(
        self, queue: TaskQueue
    ) -> None:
        chain = [task("0")] + [task(str(n), depends_on=(str(n - 1),)) for n in range(1, 1_500)]
        fan = [task("hub", queue="fan")]
        fan += [task(f"spoke-{n}", queue="fan", depends_on=("hub",)) for n in range(1_500)]
        await queue.add(chain + fan)
        await queue.transition(["0"], State.CANCELLED)
        (hub,) = await claim(queue, queues=["fan"])
        await finish(queue, hub, State.SUCCEEDED)
        counts = await queue.counts()
        assert counts[("default", State.CANCELLED)] == 1_500
        assert counts[("fan", State.QUEUED)] == 1_500

    # ---------------------------------------------------------------- questions

    async def test_unknown_ids_are_none_in_their_place(self, queue: TaskQueue) -> None:
        await queue.add([task("a")])
        found = await queue.get(["x", "a", "y", "a"])
        assert [each and each.id for each in found] == [None, "a", None, "a"]

    async def test_counts_are_by_queue_and_state(self, queue: TaskQueue) -> None:
        assert await queue.counts() == {}
        await queue.add([task("a"), task("b"), task("c", queue="other")])
        await queue.add([task("d", depends_on=("c",))])
        await claim_one(queue)
        assert await queue.counts() == {
            ("default", State.RUNNING): 1,
            ("default", State.QUEUED): 1,
            ("default", State.BLOCKED): 1,
            ("other", State.QUEUED): 1,
        }

    async def test_workers_are_known_by_their_last_heartbeat(self, queue: TaskQueue) -> None:
        first = WorkerInfo(
            id="host/1",
            kind="process",
            queues=("a", "b"),
            concurrency=4,
            host="host",
            pid=7,
            started_at=NOON,
            heartbeat_at=NOON + 0.5,
            running=2,
        )
        other = WorkerInfo(id="host/2", heartbeat_at=NOON)
        newer = msgspec.structs.replace(first, heartbeat_at=NOON + 9, state="draining", failed=1)
        assert await queue.workers() == []
        assert await queue.workers(first) == [first]
        await queue.workers(other)
        listed = await queue.workers(newer)
        assert sorted(listed, key=lambda info: info.id) == [newer, other]
        assert len(await queue.workers()) == 2

    async def test_a_scan_gives_one_row_for_each_task(self, queue: TaskQueue) -> None:
        await queue.add([full_task("full"), task("plain"), task("held", depends_on=("plain",))])
        await finish(queue, await claim_one(queue), State.FAILED, error="no", finished_at=NOON)
        found = by("id", await read(queue))
        expected = [task for task in await queue.get(["full", "held", "plain"]) if task]
        assert found == table(expected, TASKS).to_pylist()

    async def test_a_scan_gives_the_columns_asked_for(self, queue: TaskQueue) -> None:
        await queue.add([full_task("full"), task("plain")])
        (complete,) = [row for row in await read(queue) if row["id"] == "full"]
        for columns in column_sets(TASKS, ("id",)):
            found = by("id", await read(queue, Query(columns=columns)))
            assert [row["id"] for row in found] == ["full", "plain"]
            assert found[0] == {name: complete[name] for name in columns}

    async def test_a_scan_of_an_empty_queue_has_all_columns(self, queue: TaskQueue) -> None:
        assert await read(queue) == []
        assert await read(queue, Query(columns=("state", "id"), equals={"state": ("x",)})) == []

    async def test_a_scan_filters(self, queue: TaskQueue) -> None:
        await queue.add(
            [
                task(f"{name}{n}", queue=name, batch=f"batch{n}", created_at=NOON + n * 0.000001)
                for name in ("it's", "b")
                for n in range(5)
            ]
        )
        await queue.transition(["b3"], State.CANCELLED)

        async def found(**query: Any) -> list[str]:
            return sorted(row["id"] for row in await read(queue, Query(**query)))

        moment = [NOON + n * 0.000001 for n in range(5)]
        assert await found(since=moment[3]) == ["b3", "b4", "it's3", "it's4"]
        assert await found(until=moment[1]) == ["b0", "it's0"]
        assert await found(since=moment[1], until=moment[2]) == ["b1", "it's1"]
        assert await found(equals={"queue": ("it's",), "batch": ("batch0", "batch1")}) == [
            "it's0",
            "it's1",
        ]
        assert await found(equals={"state": ("cancelled",)}) == ["b3"]
        assert await found(equals={"state": ("queued",), "id": ("b3",)}) == []
        assert await found(equals={"queue": ()}) == []

    # ---------------------------------------------------------------- purge

    async def test_purge_forgets_what_finished_before(self, queue: TaskQueue) -> None:
        await queue.add([task("old"), task("new"), task("running"), task("queued")])
        for name, finished_at in (("old", NOON), ("new", NOON + 10)):
            held = await claim_one(queue)
            assert held.id == name
            await finish(queue, held, State.SUCCEEDED, finished_at=finished_at)
        await claim_one(queue)
        assert await queue.purge(NOON) == 0, "at that time is not before it"
        assert await queue.purge(NOON + 5) == 1
        assert await states(queue, "old", "new") == [None, State.SUCCEEDED]
        assert await queue.purge(NEVER) == 1
        assert await states(queue, "running", "queued") == [State.RUNNING, State.QUEUED]
        assert await queue.add([task("old")]) == [True], "a forgotten id is new again"

    async def test_purge_keeps_what_a_blocked_task_waits_for(self, queue: TaskQueue) -> None:
        await add_finished(queue, "done", State.SUCCEEDED)
        await queue.add([task("other", available_at=NEVER)])
        await queue.add([task("child", depends_on=("done", "other"))])
        assert await queue.purge(NEVER) == 0
        await queue.transition(["other"], State.CANCELLED)
        assert await states(queue, "child") == [State.CANCELLED]
        assert await queue.purge(NEVER) == 3

    async def test_a_bundle_stays_while_a_task_that_may_run_names_it(
        self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a1", "b2", "c3"):
            await queue.put_bundle(name, name.encode() * 1000)
        await queue.add([task("one", bundles=("a1", "b2")), task("two", bundles=("a1",))])
        await queue.purge(NEVER)
        assert await queue.get_bundle("c3") == b"c3" * 1000, "a task may be on its way"

        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 2 * BUNDLE_KEPT)
        await queue.purge(NEVER)
        assert await queue.get_bundle("c3") is None
        first, second = await claim(queue)
        await finish(queue, first, State.FAILED, error="ValueError: no", finished_at=NOON)
        await finish(queue, second, State.SUCCEEDED, finished_at=NOON)
        await queue.purge(NOON)
        assert await queue.get_bundle("b2") == b"b2" * 1000, "a failed task may be requeued"
        assert await queue.get_bundle("a1") == b"a1" * 1000
        assert await queue.purge(NEVER) == 2
        assert await queue.get_bundle("a1") is None
        assert await queue.get_bundle("b2") is None

    async def test_a_bundle_that_is_put_again_is_young_again(
        self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - BUNDLE_KEPT)
        await queue.put_bundle("a1", b"the same")
        monkeypatch.undo()
        await queue.put_bundle("a1", b"the same")
        monkeypatch.setattr(time, "time", lambda: now() + BUNDLE_KEPT / 2)
        await queue.purge(NEVER)
        assert await queue.get_bundle("a1") == b"the same"

    async def test_a_replaced_task_needs_its_bundle_no_more(
        self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a1", "b2"):
            await queue.put_bundle(name, b"")
        await queue.add([task("t", bundles=("a1",))])
        assert await queue.add([task("t", bundles=("b2",))]) == [False]
        assert (await get_one(queue, "t")).bundles == ("a1",)
        await finish(queue, await claim_one(queue), State.FAILED, error="ValueError: no")
        assert await queue.add([task("t", bundles=("b2",))], revive=True) == [True]
        assert (await get_one(queue, "t")).bundles == ("b2",)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 2 * BUNDLE_KEPT)
        await queue.purge(NOON)
        assert await queue.get_bundle("a1") is None
        assert await queue.get_bundle("b2") == b""

    async def test_purge_forgets_silent_workers(self, queue: TaskQueue) -> None:
        silent = WorkerInfo(id="silent", heartbeat_at=NOON)
        alive = WorkerInfo(id="alive", heartbeat_at=NOON + 10)
        await queue.workers(silent)
        await queue.workers(alive)
        assert await queue.purge(NOON + 5) == 0
        assert await queue.workers() == [alive]

    # ---------------------------------------------------------------- waiting

    async def test_waiting_ends_at_its_timeout(self, queue: TaskQueue) -> None:
        await asyncio.wait_for(queue.wait(["default"], 0.05), SOON)
        await queue.add([task("t", available_at=NEVER), task("elsewhere", queue="other")])
        await asyncio.wait_for(queue.wait(["default"], 0.05), SOON)
        await asyncio.wait_for(queue.wait(["default"], 0.0), SOON)

    async def test_waiting_is_not_spinning(self, queue: TaskQueue) -> None:
        await queue.add([task("held"), task("t", available_at=NEVER)])
        await claim_one(queue)
        wakes, ends = 0, time.monotonic() + 0.5
        while (left := ends - time.monotonic()) > 0:
            await queue.wait(["default"], left)
            wakes += 1
        assert wakes < 100

    async def test_a_due_task_ends_the_wait_at_once(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        await asyncio.wait_for(queue.wait(["empty", "default"], LONG), SOON)

    async def test_an_add_ends_the_wait(self, queue: TaskQueue) -> None:
        waiting = asyncio.create_task(queue.wait(["a", "default"], LONG))
        await asyncio.sleep(0.05)
        await queue.add([task("t")])
        await asyncio.wait_for(waiting, SOON)

    async def test_a_delayed_task_ends_the_wait_when_it_comes_due(self, queue: TaskQueue) -> None:
        await queue.add([task("t", available_at=time.time() + 0.3)])
        await until(lambda: self._wait_and_claim(queue), "woken for the delayed task", SOON)

    async def test_an_ended_lease_ends_the_wait(self, queue: TaskQueue) -> None:
        await queue.add([task("t")])
        await claim_one(queue, lease=0.3)
        await until(lambda: self._wait_and_claim(queue), "woken for the lost lease", SOON)

    async def test_retry_requeue_and_unblocking_end_the_wait(self, queue: TaskQueue) -> None:
        await queue.add([task("a"), task("b", depends_on=("a",))])

        async def woken_by(*change: Coroutine[Any, Any, object]) -> Task:
            waiting = asyncio.create_task(queue.wait(["default"], LONG))
            await asyncio.sleep(0.05)
            for each in change:
                await each
            await asyncio.wait_for(waiting, SOON)
            return await claim_one(queue)

        held = await claim_one(queue)
        held = await woken_by(finish(queue, held, State.QUEUED, released=True))
        held = await woken_by(finish(queue, held, State.QUEUED, available_at=NOON))
        held = await woken_by(
            queue.transition(["a"], State.CANCELLED), queue.transition(["a"], State.QUEUED)
        )
        assert (await queue.transition(["b"], State.QUEUED)) == [State.BLOCKED]
        held = await woken_by(finish(queue, held, State.SUCCEEDED))
        assert held.id == "b"

    async def _wait_and_claim(self, queue: TaskQueue) -> list[Task]:
        await queue.wait(["default"], LONG)
        return await claim(queue)

    async def test_a_cancelled_wait_leaves_nothing_behind(self, queue: TaskQueue) -> None:
        waiting = asyncio.create_task(queue.wait(["default"], LONG))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, SOON)
        await queue.add([task("t")])
        assert ids(await claim(queue)) == ["t"]

    async def test_another_clients_add_ends_the_wait(
        self, queue: TaskQueue, second: TaskQueue
    ) -> None:
        waiting = asyncio.create_task(queue.wait(["default"], LONG))
        await asyncio.sleep(0.1)
        await second.add([task("t")])
        await asyncio.wait_for(waiting, SOON)
        assert ids(await claim(queue)) == ["t"]

    async def test_another_processs_add_ends_the_wait(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        (process,) = start(1)
        process.run("counts")  # it is up
        waiting = asyncio.create_task(queue.wait(["default"], LONG))
        await asyncio.sleep(0.1)
        process.start("add", [task("t")])
        await asyncio.wait_for(waiting, SOON)
        assert ids(await until(lambda: claim(queue), "the task is there")) == ["t"]

    # ---------------------------------------------------------------- odd content

    async def test_odd_names_are_only_names(self, queue: TaskQueue) -> None:
        tasks = [
            task(name, name=name, batch=name, tags=(name,), call=name.encode())
            for name in ODD_NAMES
        ]
        assert await queue.add(tasks) == [True] * len(tasks)
        assert await queue.add(tasks) == [False] * len(tasks)
        found = [each for each in await queue.get(ODD_NAMES) if each]
        assert [(t.id, t.name, t.batch, t.tags) for t in found] == [
            (name, name, name, (name,)) for name in ODD_NAMES
        ]
        held = await claim(queue)
        assert [(t.id, t.call) for t in held] == [(name, name.encode()) for name in ODD_NAMES]
        assert by("id", await read(queue)) == by("id", table(held, TASKS).to_pylist())
        assert await queue.extend([t.claim for t in held], LONG) == [True] * len(held)
        accepted = await queue.settle([settles(t, State.FAILED, error=t.id) for t in held])
        assert all(accepted)
        assert [t and t.error for t in await queue.get(ODD_NAMES)] == list(ODD_NAMES)
        assert set(await queue.transition(ODD_NAMES, State.QUEUED)) == {State.QUEUED}

    async def test_odd_queue_and_worker_names_are_only_names(self, queue: TaskQueue) -> None:
        await queue.add([task(f"in {name}", queue=name) for name in ODD_NAMES])
        assert await queue.counts() == {(name, State.QUEUED): 1 for name in ODD_NAMES}
        for name in ODD_NAMES:
            (held,) = await queue.claim([name], 10, LONG, name)
            assert (held.id, held.queue, held.worker) == (f"in {name}", name, name)
            await queue.workers(WorkerInfo(id=name, queues=(name,)))
        assert {info.id for info in await queue.workers()} == set(ODD_NAMES)
        await queue.wait(ODD_NAMES, 0.0)

    async def test_odd_names_are_distinct_dependencies(self, queue: TaskQueue) -> None:
        await queue.add([task("child", queue="other", depends_on=ODD_NAMES)])
        await queue.add([task(name) for name in ODD_NAMES])
        held = await claim(queue)
        assert await queue.claim(["other"], 1, LONG, "w") == []
        await queue.settle([settles(each, State.SUCCEEDED) for each in held])
        (child,) = await claim(queue, queues=["other"])
        assert child.depends_on == ODD_NAMES

    async def test_payloads_are_bytes_whatever_they_hold(self, queue: TaskQueue) -> None:
        calls = [b"", b"\0", bytes(range(256)) * 1_000, b"'; DROP TABLE tasks; --", b"\xff\xfe\r\n"]
        await queue.add([task(str(n), call=call) for n, call in enumerate(calls)])
        assert [held.call for held in await claim(queue)] == calls

    async def test_a_bundle_is_what_was_put(self, queue: TaskQueue) -> None:
        assert await queue.get_bundle("0abc") is None
        some = random.Random(0).randbytes(3_000_000)
        for name, data in (("0abc", some), ("1abc", b"")):
            await queue.put_bundle(name, data)
            await queue.put_bundle(name, data)
            assert await queue.get_bundle(name) == data

    @pytest.mark.heavy
    async def test_a_call_may_have_fifty_megabytes(self, queue: TaskQueue) -> None:
        big = random.Random(0).randbytes(MEGABYTES_50)
        await queue.add([task("big", call=big), task("small", queue="other")])
        assert (await get_one(queue, "big")).call == b""
        held = await claim_one(queue)
        assert held.call == big
        assert await finish(queue, held, State.QUEUED, released=True)
        again = await claim_one(queue)
        assert again.call == big
        assert await finish(queue, again, State.SUCCEEDED)
        assert await queue.purge(NEVER) == 1

    async def test_large_numbers_survive(self, queue: TaskQueue) -> None:
        await queue.add([task("t", priority=-(2**40), position=2**40, timeout=1e-9)])
        held = await claim_one(queue)
        assert (held.priority, held.position, held.timeout) == (-(2**40), 2**40, 1e-9)

    # ---------------------------------------------------------------- the life of a handle

    async def test_opening_and_closing_twice_is_harmless(self, place: Place) -> None:
        queue = place.task_queue()
        await queue.open()
        await queue.add([task("t")])
        await queue.open()
        assert await states(queue, "t") == [State.QUEUED]
        await queue.close()
        await queue.close()

    async def test_a_closed_queue_says_so(self, place: Place) -> None:
        queue = place.task_queue()
        await queue.open()
        await queue.close()
        with pytest.raises(StoreClosed):
            await queue.counts()
        with pytest.raises(StoreClosed):
            await queue.add([task("t")])
        with pytest.raises(StoreClosed):
            await queue.put_bundle("a1", b"")
        with pytest.raises(StoreClosed):
            await queue.get_bundle("a1")

    async def test_closing_one_component_leaves_the_others_of_its_place_open(
        self, place: Place
    ) -> None:
        queue, results = place.task_queue(), place.result_storage()
        await queue.open()
        await results.open()
        await queue.close()
        await results.put([result("t")])
        assert await results.get([Claim("t", 1)]) == [result("t")]
        await results.close()

    async def test_a_second_client_sees_the_same_queue(
        self, queue: TaskQueue, second: TaskQueue
    ) -> None:
        await queue.add([task("a"), task("b")])
        a = await claim_one(second)
        b = await claim_one(queue)
        assert (a.id, b.id) == ("a", "b")
        assert await finish(queue, a, State.SUCCEEDED), "a claim is known to every client"
        assert await second.add([task("a")]) == [False]
        assert await states(second, "a", "b") == [State.SUCCEEDED, State.RUNNING]
        await second.transition(["b"], State.CANCELLED)
        assert not await finish(queue, b, State.SUCCEEDED)
        await second.workers(WorkerInfo(id="w"))
        assert await queue.workers() == [WorkerInfo(id="w")]
        assert len(await read(queue)) == len(await read(second)) == 2

    async def test_everything_is_still_there_after_a_reopen(self, shared: Recipe) -> None:
        async with opened(shared.place().task_queue()) as queue:
            await queue.add([full_task("full"), task("done"), task("held"), task("b"), task("a")])
            await queue.add([task("child", depends_on=("b",)), task("later", available_at=NEVER)])
            done, held = await claim(queue, limit=2)
            await finish(queue, done, State.SUCCEEDED, finished_at=NOON)
            await queue.workers(WorkerInfo(id="w", heartbeat_at=NOON))
            names = ["full", "done", "held", "a", "b", "child", "later"]
            before = await queue.get(names)
        async with opened(shared.place().task_queue()) as queue:
            assert await queue.get(names) == before
            assert await queue.workers() == [WorkerInfo(id="w", heartbeat_at=NOON)]
            await queue.add([task("0")])
            assert ids(await claim(queue, limit=9)) == ["b", "a", "0"], "the order went on"
            assert await finish(queue, held, State.SUCCEEDED)
            (full,) = await claim(queue, queues=["other"])
            assert full.call == full_task("full").call

    # ---------------------------------------------------------------- many at once

    async def test_many_coroutines_at_once_get_different_tasks(self, queue: TaskQueue) -> None:
        added = await asyncio.gather(*(queue.add([task(str(n))]) for n in range(200)))
        assert added == [[True]] * 200
        held = await asyncio.gather(*(claim(queue, limit=3) for _ in range(80)))
        assert Counter(each.id for some in held for each in some) == {str(n): 1 for n in range(200)}

    async def test_a_cancelled_operation_leaves_the_queue_usable(self, queue: TaskQueue) -> None:
        for number in range(30):
            pair = [task(f"{number}a"), task(f"{number}b")]
            for operation in (
                queue.add(pair),
                queue.claim(["nothing here"], 1, LONG, "w"),
                queue.counts(),
                queue.scan(Query()),
            ):
                running = asyncio.ensure_future(operation)
                await asyncio.sleep(number % 10 * 0.0003)
                running.cancel()
                await asyncio.wait([running])

            # What was cancelled may still be on its way, but it comes as a whole or not at all.
            both = await states(queue, pair[0].id, pair[1].id)
            assert both[0] == both[1]
        added = await queue.add(
            [task(f"{number}{letter}") for number in range(30) for letter in "ab"]
        )
        assert len(added) == 60
        held = await claim(queue)
        assert len({each.id for each in held}) == 60
        accepted = await queue.settle([settles(each, State.SUCCEEDED) for each in held])
        assert all(accepted)

    def test_an_immediate_queue_works_without_a_loop_and_from_many_threads(
        self, place: Place
    ) -> None:
        queue = place.task_queue()
        if not queue.immediate:
            return
        drive(queue.open())

        def work(thread: int) -> list[str]:
            done = []
            for number in range(20):
                assert drive(queue.add([task(f"{thread}-{number}")])) == [True]
                held = drive(queue.claim(["default"], 2, LONG, str(thread)))
                drive(queue.counts())
                accepted = drive(queue.settle([settles(t, State.SUCCEEDED) for t in held]))
                done += [t.id for t, ok in zip(held, accepted, strict=True) if ok]
            return done

        try:
            done = [name for names in in_threads(6, work) for name in names]
            done += ids(drive(queue.claim(["default"], 200, LONG, "rest")))
            assert Counter(done) == {f"{t}-{n}": 1 for t in range(6) for n in range(20)}
            assert len(rows(drive(queue.scan(Query())), TASKS, "created_at")) == 120
            assert drive(queue.purge(NEVER)) > 0
        finally:
            drive(queue.close())

    async def test_an_immediate_queue_is_used_from_a_loop_and_from_threads_at_once(
        self, queue: TaskQueue
    ) -> None:
        if not queue.immediate:
            return

        def add(thread: int) -> None:
            for number in range(50):
                drive(queue.add([task(f"{thread}-{number}")]))

        adding = [asyncio.create_task(asyncio.to_thread(add, thread)) for thread in range(3)]
        claimed: list[str] = []
        while len(claimed) < 150:
            await asyncio.wait_for(queue.wait(["default"], LONG), SOON)
            claimed += ids(await claim(queue, limit=7))
        await asyncio.gather(*adding)
        assert len(set(claimed)) == 150

    # ---------------------------------------------------------------- many processes

    @pytest.mark.heavy
    async def test_four_processes_drain_a_queue_and_each_task_is_settled_once(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        names = [str(number) for number in range(2_000)]
        processes = start(4)
        await queue.add([task(name) for name in names])
        for process in processes:
            process.run("counts")  # all are up before the race
        for number, process in enumerate(processes):
            process.start(drain, f"worker-{number}", 1 + 5 * number)
        settled = [process.answer() for process in processes]
        assert Counter(name for some in settled for name in some) == dict.fromkeys(names, 1)
        assert await queue.counts() == {("default", State.SUCCEEDED): 2_000}

    async def test_a_contested_task_has_one_winner_each_time(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        processes = start(4)
        for process in processes:
            process.run("counts")
        for number in range(20):
            await queue.add([task(str(number))])
            for process in processes:
                process.start("claim", ["default"], 1, LONG, "w")
            claimed = [held for process in processes for held in process.answer()]
            assert [(held.id, held.token) for held in claimed] == [(str(number), 1)]

    async def test_two_submitters_of_one_id_add_it_once(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        processes = start(3)
        batches = [[task(f"{n}-{part}") for part in range(5)] for n in range(20)]
        for process in processes:
            for batch in batches:
                process.start("add", batch)
        answers = [[process.answer() for _ in batches] for process in processes]
        for n in range(20):
            for part in range(5):
                assert sum(answer[n][part] for answer in answers) == 1
        assert await queue.counts() == {("default", State.QUEUED): 100}

    async def test_the_tasks_of_a_killed_worker_come_back(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        (worker,) = start(1)
        await queue.add([task(str(number)) for number in range(20)])
        held = worker.run("claim", ["default"], 10, 1.0, "victim")
        worker.run("settle", [settles(held[0], State.SUCCEEDED)])
        worker.kill()
        rest = await claim(queue)
        assert [each.id for each in rest[:10] if not each.lost] == ids(rest[:10])
        back = [each for each in rest if each.lost]
        while len(back) < 9:
            back += await until(lambda: claim(queue), "the lost leases are over")
        assert sorted(ids(back)) == sorted(ids(held[1:]))
        assert {(each.attempt, each.token, each.lost) for each in back} == {(2, 2, 1)}
        assert await states(queue, held[0].id) == [State.SUCCEEDED]

    async def test_every_acknowledged_task_survives_a_kill(
        self, shared: Recipe, queue: TaskQueue, start: StartProcesses
    ) -> None:
        for life, writer in enumerate(start(3)):
            batches = [[task(f"{life}-{n}-{part}") for part in range(100)] for n in range(60)]
            for batch in batches[: 20 * (life + 1)]:
                writer.start("add", batch)
            writer.answer()
            writer.kill()
            acknowledged = 1 + len(writer.last_words())
            found = await queue.get([each.id for batch in batches for each in batch])
            for n in range(len(batches)):
                known = {each is not None for each in found[100 * n : 100 * (n + 1)]}
                assert known == {True} or n >= acknowledged, f"batch {n} of {acknowledged} was lost"
                assert len(known) == 1, f"batch {n} is there in part"
            assert await queue.add([task(f"{life}")]) == [True], "and the queue is not locked"
        counted = sum((await queue.counts()).values())
        held = await claim(queue, limit=20_000)
        assert len({each.id for each in held}) == len(held) == counted
        async with opened(shared.place().task_queue()) as reopened:
            assert sum((await reopened.counts()).values()) == counted

    async def test_a_process_frozen_in_the_middle_of_a_write_does_not_freeze_the_loop(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        (writer,) = start(1)
        writer.run("counts")
        for number in range(6):
            writer.start("add", [task(f"{number}-{part}") for part in range(3_000)])
            await asyncio.sleep(0.01 * number)
            writer.stop()
            adding = asyncio.create_task(queue.add([task(f"{number}")]))
            before = time.monotonic()
            await asyncio.sleep(0.05)
            assert time.monotonic() - before < 5.0, "the loop stood still"
            writer.resume()
            assert await asyncio.wait_for(adding, SOON) == [True]
            assert all(writer.answer())

    async def test_a_frozen_worker_that_wakes_after_its_lease_is_refused(
        self, queue: TaskQueue, start: StartProcesses
    ) -> None:
        (zombie,) = start(1)
        await queue.add([task("t")])
        (held,) = zombie.run("claim", ["default"], 1, 0.3, "zombie")
        zombie.stop()
        (owner,) = await until(lambda: claim(queue), "the lease is over")
        zombie.resume()
        assert zombie.run("extend", [held.claim], LONG) == [False]
        assert zombie.run("settle", [settles(held, State.SUCCEEDED)]) == [False]
        assert await finish(queue, owner, State.FAILED, error="ValueError: the owner's")
        assert (await get_one(queue, "t")).error == "ValueError: the owner's"

    # ---------------------------------------------------------------- against the model

    @pytest.mark.heavy
    def test_random_histories_agree_with_the_machine(
        self, new_recipe: Callable[[], Recipe]
    ) -> None:
        compare_random_histories(new_recipe)
