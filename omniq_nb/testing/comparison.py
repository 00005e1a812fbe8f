"""Random histories, told to a queue and to the machine side by side.

What is due does not depend on the clock: times lie long ago or far ahead, and leases are long
or over before they begin. So the two must agree on everything but the exact moment of "now".
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from omniq_nb.machine import Add, Beat, ClaimDue, Extend, Machine, Move, Purge, SettleAll
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo
from omniq_nb.testing import strategies as some
from omniq_nb.testing.places import Recipe
from omniq_nb.testing.samples import NEVER, NOON

Answer = TypeVar("Answer")

CLOCK_FIELDS = ("available_at", "started_at", "finished_at")
DEPENDENCY_ERROR = "TaskCancelled: the task"


def compare_random_histories(
    new_recipe: Callable[[], Recipe], examples: int = 20, steps: int = 30
) -> None:
    """Fail with the shortest history on which a queue and the machine disagree."""
    run_state_machine_as_test(
        lambda: QueueComparison(new_recipe()),  # type: ignore[arg-type] # any callable will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def alike(ours: Task | None, theirs: Task | None) -> bool:
    """Whether two tasks are equal but for the exact moment at which things happened."""
    if ours is None or theirs is None:
        return ours is theirs
    for name in CLOCK_FIELDS:
        one, other = getattr(ours, name), getattr(theirs, name)
        if (one is None) != (other is None) or abs((one or 0.0) - (other or 0.0)) > 50:
            return False
    # A task may wait for two that end at once: either may be named.
    errors = (ours.error, theirs.error)
    same_error = all((error or "").startswith(DEPENDENCY_ERROR) for error in errors)
    plain = dict.fromkeys(CLOCK_FIELDS) | {"seq": 0, "error": None}
    return (same_error or errors[0] == errors[1]) and msgspec.structs.replace(
        ours, **plain
    ) == msgspec.structs.replace(theirs, **plain)


class QueueComparison(RuleBasedStateMachine):
    """One history: the same commands for a queue and for the machine.

    Parameters
    ----------
    recipe : Recipe
        An empty place.
    """

    claims = Bundle("claims")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.queue = recipe.place().task_queue()
        self.machine = Machine()
        self.run(self.queue.open())

    def teardown(self) -> None:
        """Close the queue and its loop."""
        self.run(self.queue.close())
        self.runner.close()

    def run(self, operation: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for a method of the queue."""
        return self.runner.run(operation)

    @rule(tasks=st.lists(some.tasks(), min_size=1, max_size=4), revive=st.booleans())
    def add(self, tasks: list[Task], revive: bool) -> None:
        expected = self.machine.add(Add(tasks=tasks, now=time.time(), revive=revive))
        assert self.run(self.queue.add(tasks, revive)) == expected

    @rule(
        target=claims,
        queues=some.queue_lists,
        limit=some.limits,
        lease=some.leases,
        worker=st.sampled_from(["w1", "w2"]),
    )
    def claim(
        self, queues: tuple[str, ...], limit: int, lease: float, worker: str
    ) -> MultipleResults[Claim]:
        expected = self.machine.claim(
            ClaimDue(queues=queues, limit=limit, lease=lease, worker=worker, now=time.time())
        )
        claimed = self.run(self.queue.claim(queues, limit, lease, worker))
        assert [held.id for held in claimed] == [held.id for held in expected], "wrong order"
        for ours, theirs in zip(expected, claimed, strict=True):
            assert alike(ours, theirs), f"\nmachine {ours}\nqueue   {theirs}"
        return multiple(*(held.claim for held in claimed))

    @rule(held=st.lists(claims, min_size=1, max_size=3), lease=some.leases)
    def extend(self, held: list[Claim], lease: float) -> None:
        expected = self.machine.extend(Extend(claims=held, lease=lease, now=time.time()))
        assert self.run(self.queue.extend(held, lease)) == expected

    @rule(ended=st.lists(st.tuples(claims, some.endings()), min_size=1, max_size=3))
    def settle(self, ended: list[tuple[Claim, Settle]]) -> None:
        outcomes = {
            held.id: msgspec.structs.replace(ending, id=held.id, token=held.token)
            for held, ending in ended
        }
        expected = self.machine.settle(SettleAll(outcomes=list(outcomes.values()), now=time.time()))
        assert self.run(self.queue.settle(list(outcomes.values()))) == expected

    @rule(
        ids=some.id_lists,
        to=st.sampled_from([State.CANCELLED, State.QUEUED, State.QUEUED, State.EXPIRED]),
    )
    def transition(self, ids: Sequence[str], to: State) -> None:
        expected = self.machine.move(Move(ids=list(ids), to=to, now=time.time()))
        assert self.run(self.queue.transition(ids, to)) == expected

    @rule(id=st.sampled_from(["w1", "w2"]), at=st.sampled_from([NOON, NEVER]))
    def beat(self, id: str, at: float) -> None:
        info = WorkerInfo(id=id, heartbeat_at=at)
        self.machine.apply(Beat(worker=info))
        listed = self.run(self.queue.workers(info))
        assert sorted(listed, key=lambda info: info.id) == sorted(
            self.machine.workers.values(), key=lambda info: info.id
        )

    @rule(before=st.sampled_from([NOON + 5, NEVER]))
    def purge(self, before: float) -> None:
        expected = self.machine.purge(Purge(before=before))
        assert self.run(self.queue.purge(before)) == expected

    @invariant()
    def both_know_the_same_tasks(self) -> None:
        """Every task reads alike, and is counted."""
        for id, theirs in zip(some.IDS, self.run(self.queue.get(some.IDS)), strict=True):
            ours = self.machine.tasks.get(id)
            ours = ours and msgspec.structs.replace(ours, call=b"")
            assert alike(ours, theirs), f"\nmachine {ours}\nqueue   {theirs}"
        counts = self.run(self.queue.counts())
        assert counts == self.machine.counts()
