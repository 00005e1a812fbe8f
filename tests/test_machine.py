"""The state machine, by example and in random histories against a naive model of it."""

import collections
import copy

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from omniq_nb.machine import (
    EXPIRED_ERROR,
    LOST_ERROR,
    MAX_LOST,
    Add,
    Beat,
    ClaimDue,
    Command,
    Extend,
    Machine,
    Move,
    Purge,
    SettleAll,
)
from omniq_nb.models.task import FINAL, Claim, Settle, State, Task, WorkerInfo

QUEUES = ("a", "b")


def task(id, **fields):
    return Task(id=id, name="f", **fields)


def add(machine, *tasks, now=0.0, revive=False):
    return machine.add(Add(tasks=list(tasks), now=now, revive=revive))


def claim(machine, now=0.0, limit=10, lease=10.0, grace=0.0, queues=("default",), worker="w"):
    return copy.deepcopy(
        machine.claim(
            ClaimDue(queues=queues, limit=limit, lease=lease, worker=worker, now=now, grace=grace)
        )
    )


def settle(machine, held, to=State.SUCCEEDED, now=0.0, **fields):
    outcome = Settle(id=held.id, token=held.token, to=to, **fields)
    return machine.settle(SettleAll(outcomes=[outcome], now=now))[0]


def move(machine, id, to, now=0.0):
    return machine.move(Move(ids=[id], to=to, now=now))[0]


def ids(tasks):
    return [found.id for found in tasks]


# ---------------------------------------------------------------- by example


def test_an_id_is_added_once():
    machine = Machine()
    assert add(machine, task("t"), task("t")) == [True, False]
    (held,) = claim(machine)
    settle(machine, held)
    assert add(machine, task("t"), revive=True) == [False]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_revived_task_is_the_new_one_with_the_old_ones_token(state):
    machine = Machine()
    add(machine, task("t", priority=1))
    (held,) = claim(machine)
    settle(machine, held, state)
    assert add(machine, task("t", priority=2), revive=True) == [True]
    (again,) = claim(machine)
    assert (again.priority, again.attempt, again.token) == (2, 1, held.token + 1)


def test_what_the_submitter_passes_in_is_not_changed():
    machine, given = Machine(), task("t")
    add(machine, given)
    claim(machine)
    assert given == task("t")


def test_the_order_is_queues_then_priority_then_time_then_arrival():
    machine = Machine()
    add(
        machine,
        task("other queue", queue="b", priority=9),
        task("later", available_at=2.0),
        task("sooner", available_at=1.0),
        task("sooner too", available_at=1.0),
        task("urgent", available_at=3.0, priority=1),
        task("not yet", available_at=9.0, priority=5),
    )
    order = ["urgent", "sooner", "sooner too", "later", "other queue"]
    assert ids(claim(machine, now=5.0, queues=("default", "b"))) == order


def test_an_ended_lease_is_due_again_after_the_grace():
    machine = Machine()
    add(machine, task("t"))
    claim(machine, now=0.0, lease=10.0, grace=5.0)
    assert not claim(machine, now=14.9, grace=5.0)
    (again,) = claim(machine, now=15.0, grace=5.0)
    assert (again.token, again.attempt, again.lost) == (2, 2, 1)


def test_a_claim_by_a_slower_clock_takes_nothing_early():
    machine = Machine()
    add(machine, task("t", available_at=10.0), task("u", available_at=10.0))
    assert ids(claim(machine, now=10.0, limit=1)) == ["t"]
    assert not claim(machine, now=9.0)
    assert ids(claim(machine, now=10.0)) == ["u"]


def test_a_lost_attempt_costs_no_retry():
    machine = Machine()
    add(machine, task("t"))
    (first,) = claim(machine, lease=1.0)
    (second,) = claim(machine, now=2.0)
    assert first.retries_left == second.retries_left


def test_a_task_that_loses_every_worker_is_given_up_and_reported_once():
    machine = Machine()
    add(machine, task("t"))
    for number in range(MAX_LOST):
        (held,) = claim(machine, now=10.0 * number, lease=1.0)
        assert held.state is State.RUNNING
    (over,) = claim(machine, now=1000.0)
    assert (over.state, over.error) == (State.FAILED, LOST_ERROR)
    assert not claim(machine, now=2000.0)


def test_a_stale_claim_can_do_nothing():
    machine = Machine()
    add(machine, task("t"))
    (zombie,) = claim(machine, lease=1.0)
    (held,) = claim(machine, now=2.0)
    assert machine.extend(Extend(claims=[zombie.claim], lease=9.0, now=2.0)) == [False]
    assert not settle(machine, zombie)
    assert not settle(machine, zombie, State.QUEUED, released=True)
    assert settle(machine, held)
    assert not settle(machine, held)


def test_a_retry_waits_and_a_release_does_not_count():
    machine = Machine()
    add(machine, task("t"))
    (held,) = claim(machine)
    settle(machine, held, State.QUEUED, available_at=50.0, error="E: no")
    assert not claim(machine, now=49.0)
    (held,) = claim(machine, now=50.0)
    assert (held.attempt, held.error) == (2, "E: no")
    settle(machine, held, State.QUEUED, released=True, now=51.0)
    (held,) = claim(machine, now=51.0)
    assert (held.attempt, held.token) == (2, 3)


def test_a_task_past_its_ttl_expires_when_somebody_would_claim_it():
    machine = Machine()
    add(machine, task("t", expires_at=5.0), task("u"))
    over, held = claim(machine, now=5.0)
    assert (over.state, over.error, held.id) == (State.EXPIRED, EXPIRED_ERROR, "u")


def test_cancelling_a_running_task_revokes_its_claim():
    machine = Machine()
    add(machine, task("t"))
    (held,) = claim(machine)
    assert move(machine, "t", State.CANCELLED) is State.CANCELLED
    assert not settle(machine, held)


def test_a_requeued_task_starts_afresh_with_a_new_token():
    machine = Machine()
    add(machine, task("t", expires_at=1.0))
    (held,) = claim(machine)
    settle(machine, held, State.FAILED, error="E: no")
    assert move(machine, "t", State.QUEUED, now=100.0) is State.QUEUED
    (again,) = claim(machine, now=100.0)
    assert (again.attempt, again.token, again.error) == (1, held.token + 1, None)


def test_a_task_waits_for_all_that_it_depends_on():
    machine = Machine()
    add(machine, task("c", depends_on=("a", "b")), task("a"), task("b"))
    assert machine.tasks["c"].state is State.BLOCKED
    for held in claim(machine):
        settle(machine, held)
    assert ids(claim(machine)) == ["c"]


def test_what_depends_on_a_failure_is_cancelled_to_the_last():
    machine = Machine()
    links = [task(str(n), depends_on=(str(n - 1),) if n else ()) for n in range(5000)]
    add(machine, *links)
    (held,) = claim(machine)
    settle(machine, held, State.FAILED)
    assert machine.counts() == {
        ("default", State.FAILED): 1,
        ("default", State.CANCELLED): 4999,
    }


def test_a_rebuilt_machine_blames_the_same_dependency():
    machine = Machine()
    diamond = [task("a"), task("b", depends_on=("a",)), task("c", depends_on=("a",))]
    add(machine, *diamond, task("d", depends_on=("b", "c")))
    move(machine, "b", State.CANCELLED)
    for id in "bd":  # so b is blocked by a after c is
        assert move(machine, id, State.QUEUED) is State.BLOCKED
    rebuilt = Machine(copy.deepcopy(list(machine.tasks.values())), (), machine.seq)
    for each in (machine, rebuilt):
        move(each, "a", State.CANCELLED)
    assert machine.tasks == rebuilt.tasks


def test_purge_keeps_what_a_blocked_task_waits_for():
    machine = Machine()
    add(machine, task("a"), task("b"), task("c", depends_on=("a", "b")), task("d"))
    for held in claim(machine):
        if held.id != "b":
            settle(machine, held, finished_at=1.0)
    assert machine.purge(Purge(before=2.0)) == 1
    assert set(machine.tasks) == {"a", "b", "c"}


def test_the_next_due_time_ignores_what_is_over():
    machine = Machine()
    add(machine, task("t", available_at=5.0), task("u", available_at=7.0))
    assert machine.next_due(["default"]) == 5.0
    move(machine, "t", State.CANCELLED)
    assert machine.next_due(["default"]) == 7.0
    assert machine.next_due(["other"]) is None


# ---------------------------------------------------------------- in random histories

NAMES = [f"t{number}" for number in range(6)]
names = st.sampled_from(NAMES)
drawn_tasks = st.tuples(
    names,
    st.sampled_from(QUEUES),
    st.integers(-1, 1),
    st.sampled_from([0.0, 0.0, 0.0, 5.0]),
    st.sampled_from([None, None, None, 8.0]),
    st.just(()) | st.just(()) | st.lists(names, max_size=2).map(tuple),
)
skews = st.sampled_from([-4.0, 0.0, 3.0])
_command_decoder = msgspec.msgpack.Decoder(Command)


def dumped(machine):
    """All that a machine knows."""
    tasks = sorted(machine.tasks.values(), key=lambda found: found.id)
    workers = sorted(machine.workers.values(), key=lambda info: info.id)
    return tasks, workers, machine.seq


class Naive:
    """The rules of the architecture's section 3, word by word: slow, and with no index."""

    def __init__(self):
        self.tasks: dict[str, dict] = {}
        self.arrivals = 0

    def states(self):
        return {id: (t["state"], t["token"], t["attempt"]) for id, t in self.tasks.items()}

    def succeeded(self, id):
        return id in self.tasks and self.tasks[id]["state"] is State.SUCCEEDED

    def spread(self):
        """Free or cancel blocked tasks, until nothing changes any more."""
        changed = True
        while changed:
            changed = False
            for t in self.tasks.values():
                if t["state"] is not State.BLOCKED:
                    continue
                ended = [self.tasks[id]["state"] for id in t["needs"] if id in self.tasks]
                if any(s in FINAL and s is not State.SUCCEEDED for s in ended):
                    t.update(state=State.CANCELLED, finished=self.now)
                    changed = True
                elif all(map(self.succeeded, t["needs"])):
                    t["state"] = State.QUEUED
                    changed = True

    def add(self, tasks, now, revive):
        added, self.now = [], now
        for new in tasks:
            known = self.tasks.get(new.id)
            gone = known and known["state"] in FINAL and not self.succeeded(new.id)
            added.append(known is None or bool(gone and revive))
            if not added[-1]:
                continue
            self.arrivals += 1
            self.tasks[new.id] = {
                "state": State.BLOCKED,
                "token": known["token"] if known else 0,
                "attempt": 0,
                "lost": 0,
                "queue": new.queue,
                "priority": new.priority,
                "at": new.available_at,
                "arrival": self.arrivals,
                "expires": new.expires_at,
                "needs": new.depends_on,
                "finished": None,
            }
            self.spread()
        return added

    def claim(self, queues, limit, lease, now, grace):
        """The ids of what is claimed or has just ended, in order."""
        taken, self.now = [], now
        for queue in queues:
            due = [
                (-t["priority"], t["at"], t["arrival"], id)
                for id, t in self.tasks.items()
                if t["queue"] == queue
                and (
                    (t["state"] is State.QUEUED and t["at"] <= now)
                    or (t["state"] is State.RUNNING and t["at"] + grace <= now)
                )
            ]
            for *_, id in sorted(due)[: limit - len(taken)]:
                taken.append(id)
                t = self.tasks[id]
                t["lost"] += t["state"] is State.RUNNING
                if t["state"] is State.RUNNING and t["lost"] >= MAX_LOST:
                    t.update(state=State.FAILED, finished=now)
                elif t["expires"] is not None and t["expires"] <= now:
                    t.update(state=State.EXPIRED, finished=now)
                else:
                    t.update(state=State.RUNNING, at=now + lease, finished=None)
                    t["token"] += 1
                    t["attempt"] += 1
                self.spread()
        return taken

    def holds(self, id, token):
        t = self.tasks.get(id)
        return t is not None and t["state"] is State.RUNNING and t["token"] == token

    def settle(self, id, token, to, released, available_at, now):
        self.now = now
        if not self.holds(id, token):
            return False
        t = self.tasks[id]
        t["state"] = to
        if to is not State.QUEUED:
            t["finished"] = now
        elif released:
            t["attempt"] -= 1
            t["at"] = now
        else:
            t["at"] = available_at
        self.spread()
        return True

    def move(self, id, to, now):
        self.now = now
        t = self.tasks.get(id)
        if t is None:
            return None
        state = t["state"]
        if to is State.CANCELLED and state not in FINAL:
            t["token"] += state is State.RUNNING
            t.update(state=to, finished=now)
        elif to is State.EXPIRED and state in (State.QUEUED, State.BLOCKED):
            if t["expires"] is not None and t["expires"] <= now:
                t.update(state=to, finished=now)
        elif to is State.QUEUED and state in FINAL and state is not State.SUCCEEDED:
            t.update(state=State.BLOCKED, attempt=0, lost=0, at=now, expires=None, finished=None)
        self.spread()
        return t["state"]

    def purge(self, before):
        waited_for = {
            id for t in self.tasks.values() if t["state"] is State.BLOCKED for id in t["needs"]
        }
        gone = [
            id
            for id, t in self.tasks.items()
            if t["state"] in FINAL and t["finished"] < before and id not in waited_for
        ]
        for id in gone:
            del self.tasks[id]
        return len(gone)


class Histories(RuleBasedStateMachine):
    """Three machines hear the same commands: one as they are, one after a round trip through
    bytes, one rebuilt from checkpoints. The naive model says what must come of them.
    """

    def __init__(self):
        super().__init__()
        self.machine, self.twin, self.restored = Machine(), Machine(), Machine()
        self.naive = Naive()
        self.now = 100.0
        self.claims: list[Claim] = []  # of this life of each task, live and stale ones
        self.settled: set[Claim] = set()
        self.seen = collections.Counter()

    def apply(self, command):
        written = msgspec.msgpack.encode(command)
        outcomes = [
            copy.deepcopy(machine.apply(heard))
            for machine, heard in (
                (self.machine, command),
                (self.twin, _command_decoder.decode(written)),
                (self.restored, copy.deepcopy(command)),
            )
        ]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert msgspec.msgpack.encode(command) == written, "a command was changed"
        return outcomes[0]

    @initialize(first=st.lists(drawn_tasks, min_size=6, max_size=10))
    def begins_with_tasks(self, first):
        self.adds(first, False)

    @rule(drawn=st.lists(drawn_tasks, min_size=1, max_size=4), revive=st.booleans())
    def adds(self, drawn, revive):
        tasks = [
            task(
                name,
                queue=queue,
                priority=priority,
                available_at=self.now + delay,
                expires_at=None if ttl is None else self.now + ttl,
                depends_on=needs,
            )
            for name, queue, priority, delay, ttl, needs in drawn
        ]
        added = self.apply(Add(tasks=tasks, now=self.now, revive=revive))
        assert added == self.naive.add(tasks, self.now, revive)

    @rule(
        queues=st.sampled_from([("a", "b"), ("b", "a"), ("a",), ("b",)]),
        limit=st.sampled_from([3, 2, 1, 0]),
        lease=st.sampled_from([5.0, 20.0]),
        skew=skews,
        grace=st.sampled_from([0.0, 6.0]),
        worker=st.sampled_from(["v", "w"]),
    )
    def claims_due_tasks(self, queues, limit, lease, skew, grace, worker):
        now = self.now + skew
        command = ClaimDue(
            queues=queues, limit=limit, lease=lease, worker=worker, now=now, grace=grace
        )
        claimed = self.apply(command)
        running = {id for id, t in self.naive.tasks.items() if t["state"] is State.RUNNING}
        assert ids(claimed) == self.naive.claim(queues, limit, lease, now, grace)
        for held in claimed:
            self.seen["lost lease"] += held.id in running
            self.seen["expired"] += held.state is State.EXPIRED
            self.seen["claimed"] += held.state is State.RUNNING
            assert held.state in (State.RUNNING, State.EXPIRED, State.FAILED)
            if held.state is State.RUNNING:
                assert held.worker == worker
                assert held.claim not in self.claims, "a token was given twice"
                self.claims.append(held.claim)

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        to=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED]),
        released=st.booleans(),
        delay=st.sampled_from([0.0, 4.0]),
        skew=skews,
    )
    def settles_a_claim(self, data, to, released, delay, skew):
        id, token = claim = data.draw(st.sampled_from(self.claims))
        now, released = self.now + skew, released and to is State.QUEUED
        outcome = Settle(
            id=id, token=token, to=to, released=released, available_at=now + delay, error="E: no"
        )
        (accepted,) = self.apply(SettleAll(outcomes=[outcome], now=now))
        assert accepted == self.naive.settle(id, token, to, released, now + delay, now)
        self.seen["settled" if accepted else "refused"] += 1
        if accepted:
            assert claim not in self.settled, "a claim was settled twice"
            self.settled.add(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), skew=skews)
    def extends_a_lease(self, data, skew):
        id, token = data.draw(st.sampled_from(self.claims))
        command = Extend(claims=[Claim(id, token)], lease=10.0, now=self.now + skew)
        (kept,) = self.apply(command)
        assert kept == self.naive.holds(id, token)
        if kept:
            self.naive.tasks[id]["at"] = self.now + skew + 10.0

    @rule(id=names, to=st.sampled_from([State.CANCELLED, State.QUEUED, State.EXPIRED]))
    def moves_by_hand(self, id, to):
        known = self.machine.tasks.get(id)
        if known is not None and known.state is State.RUNNING and to is State.CANCELLED:
            self.seen["cancelled while running"] += 1
        (state,) = self.apply(Move(ids=[id], to=to, now=self.now))
        assert state == self.naive.move(id, to, self.now)

    @precondition(lambda self: any(found.state in FINAL for found in self.machine.tasks.values()))
    @rule(age=st.sampled_from([10.0, 40.0]))
    def purges(self, age):
        before = set(self.machine.tasks)
        number = self.apply(Purge(before=self.now - age))
        assert number == self.naive.purge(self.now - age)
        gone = before - set(self.machine.tasks)
        assert len(gone) == number
        self.seen["purged"] += number
        # The id's next life counts its tokens from the start.
        self.claims = [claim for claim in self.claims if claim.id not in gone]
        self.settled = {claim for claim in self.settled if claim.id not in gone}

    @rule(seconds=st.sampled_from([5.0, 1.0, 30.0]), worker=st.sampled_from(["v", "w"]))
    def time_passes_and_a_worker_beats(self, seconds, worker):
        self.now += seconds
        self.apply(Beat(worker=WorkerInfo(id=worker, heartbeat_at=self.now)))
        assert self.machine.workers[worker].heartbeat_at == self.now

    @precondition(lambda self: self.expiring())
    @rule(late=st.sampled_from([0.5, 20.0]))
    def a_worker_comes_too_late(self, late):
        # Left to chance, hardly any history waits for a ttl and then claims.
        self.now = max(self.now, *self.expiring()) + late
        self.claims_due_tasks(("a", "b"), 3, 5.0, 0.0, 0.0, "w")

    def expiring(self):
        """When the tasks that are queued and have a ttl expire."""
        return [
            found.expires_at
            for found in self.machine.tasks.values()
            if found.state is State.QUEUED and found.expires_at is not None
        ]

    @rule()
    def is_restored_from_a_checkpoint(self):
        tasks, workers, seq = copy.deepcopy(
            (list(self.machine.tasks.values()), self.machine.workers, self.machine.seq)
        )
        self.restored = Machine(tasks, workers.values(), seq)

    @invariant()
    def all_machines_agree(self):
        assert dumped(self.machine) == dumped(self.twin) == dumped(self.restored)

    @invariant()
    def every_task_stands_where_the_rules_say(self):
        stands = {
            id: (found.state, found.token, found.attempt)
            for id, found in self.machine.tasks.items()
        }
        assert stands == self.naive.states()

    @invariant()
    def counts_and_the_next_due_time_are_right(self):
        counts: dict[tuple[str, State], int] = {}
        for t in self.naive.tasks.values():
            key = (t["queue"], t["state"])
            counts[key] = counts.get(key, 0) + 1
        assert self.machine.counts() == counts
        for queue in QUEUES:
            times = [
                t["at"]
                for t in self.naive.tasks.values()
                if t["queue"] == queue and t["state"] in (State.QUEUED, State.RUNNING)
            ]
            # Among those that are due, by the fastest clock, it may be that of any.
            latest, found = self.now + 3.0, self.machine.next_due([queue])
            assert (found is None) == (not times)
            assert not times or max(found, latest) == max(min(times), latest)


def test_random_histories_agree_with_the_rules():
    seen = collections.Counter()

    class Counted(Histories):
        def teardown(self):
            seen.update(self.seen)

    run_state_machine_as_test(
        Counted, settings=settings(max_examples=100, stateful_step_count=50, deadline=None)
    )
    # A history in which little happens proves little.
    for what in ("claimed", "settled", "refused", "lost lease", "expired"):
        assert seen[what] >= 5, f"too few histories got as far as {what!r}: {dict(seen)}"
    assert seen["cancelled while running"] and seen["purged"], dict(seen)
