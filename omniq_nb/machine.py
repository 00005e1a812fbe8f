"""The life of a task, as pure functions: no clock, no I/O, no randomness.

::

    blocked ──last dependency succeeded──► queued ──claim──► running ──settle──► succeeded
       │                                    ▲ │ ▲              │ │ │               failed
       └─a dependency did not──► cancelled  │ │ └─retry, release,│ │               cancelled
                                            │ │   lost lease ────┘ │
               requeue by hand, resubmission│ └─ttl over──► expired└─cancel──► cancelled
               from failed, cancelled, expired

A `Machine` holds the folded state of one queue and applies *commands*. Applying a command is
deterministic: the same commands in the same order give the same state and the same outcomes in
every process, in every release that knows `VERSION`. So a log of commands *is* a queue
(`omniq_nb.storage.journal`), and the machine is the model that every other queue is tested
against.

Not here: when a retry is due and whether an exception deserves one (`omniq_nb.core`).
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from heapq import heappop, heappush
from math import inf

import msgspec

from omniq_nb.models.task import FINAL, Claim, Settle, State, Task, WorkerInfo

VERSION = 2
"""Of the commands and of their meaning. A log written by a newer version is refused.

Version 2: tasks name bundles, which a fold must count.
"""

MAX_LOST = 10
"""A task that took this many workers down with it is not given to another one."""

LOST_ERROR = f"WorkerLost: its worker vanished {MAX_LOST} times while it ran"
EXPIRED_ERROR = "TaskExpired: not started within its ttl"
CANCELLED_ERROR = "TaskCancelled: cancelled"


def dependency_error(task_id: str) -> str:
    """The error of a task that was cancelled because `task_id` did not succeed."""
    return f"TaskCancelled: the task {task_id!r} that it depends on did not succeed"


REQUEUEABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
"""Final states that a task may leave again, by hand or by resubmission."""


# Python finds a name much sooner than a member of an enumeration, and the fold looks for many.
BLOCKED, CANCELLED, EXPIRED, FAILED, QUEUED, RUNNING, SUCCEEDED = (
    State.BLOCKED,
    State.CANCELLED,
    State.EXPIRED,
    State.FAILED,
    State.QUEUED,
    State.RUNNING,
    State.SUCCEEDED,
)


class Add(msgspec.Struct, tag="add", kw_only=True, omit_defaults=True):
    """Enqueue `tasks`. Outcome: for each, whether it was enqueued now.

    An id that is already known is left alone, except that with `revive` a task that is
    failed, cancelled or expired is replaced by the new one and queued again.
    """

    tasks: list[Task]
    now: float
    revive: bool = False


class ClaimDue(msgspec.Struct, tag="claim", kw_only=True, omit_defaults=True):
    """Lease up to `limit` due tasks to `worker`. Outcome: the claimed tasks, as they now stand.

    A lease counts as lost `grace` seconds after its deadline, which covers the skew between
    clocks. Tasks that turn out to be over (expired, or lost too often) are returned in their
    final state, once, so that somebody can tell the world; they count against `limit`.
    """

    queues: tuple[str, ...]
    limit: int
    lease: float
    worker: str
    now: float
    grace: float = 0.0


class Extend(msgspec.Struct, tag="extend", kw_only=True, omit_defaults=True):
    """Move leases to `now + lease`. Outcome: for each claim, False if it is not the live one."""

    claims: list[Claim]
    lease: float
    now: float


class SettleAll(msgspec.Struct, tag="settle", kw_only=True, omit_defaults=True):
    """Apply outcomes. Outcome: for each, False if its claim is not the live one."""

    outcomes: list[Settle]
    now: float


class Move(msgspec.Struct, tag="move", kw_only=True, omit_defaults=True):
    """Transitions by hand: to CANCELLED, QUEUED (requeue) or EXPIRED (its time is over).

    Outcome: for each id its state afterwards, None if it is unknown. Where the transition is
    not allowed the state stays as it is.
    """

    ids: list[str]
    to: State
    now: float


class Beat(msgspec.Struct, tag="beat", kw_only=True, omit_defaults=True):
    """A worker's heartbeat. Outcome: None."""

    worker: WorkerInfo


class Purge(msgspec.Struct, tag="purge", kw_only=True, omit_defaults=True):
    """Forget tasks that finished, and workers last heard of, before `before`.

    Outcome: the number of tasks forgotten. A task that a blocked task waits for is kept.
    """

    before: float


Command = Add | ClaimDue | Extend | SettleAll | Move | Beat | Purge


class Machine:
    """The folded state of one queue. Every mutation goes through the methods named like commands.

    The tasks that it returns are its own: callers copy before they change one.

    Parameters
    ----------
    tasks : iterable of Task, optional
        A checkpoint to start from, as `tasks` gave it.
    workers : iterable of WorkerInfo, optional
        The same for workers.
    seq : int
        The number of the last arrival.
    """

    def __init__(
        self, tasks: Iterable[Task] = (), workers: Iterable[WorkerInfo] = (), seq: int = 0
    ) -> None:
        self.tasks: dict[str, Task] = {}
        self.workers: dict[str, WorkerInfo] = {info.id: info for info in workers}
        self.seq = seq
        # Both heaps hold entries that may have gone stale: `_current` tells. `_later` is by
        # time and feeds `_ready`, which is in claim order. What is due at one moment, as the
        # leases of one claim are, is one entry there.
        self._ready: dict[str, list[tuple[int, float, int, str]]] = {}
        self._later: dict[str, list[tuple[float, int, list[tuple[int, str]]]]] = {}
        self._entries = 0  # of `_later`, ever: no two compare equal
        self._dependents: dict[str, list[str]] = {}
        for task in tasks:
            self.tasks[task.id] = task
            self._index(task)

    # ---------------------------------------------------------------- commands

    def apply(self, command: Command) -> object:
        """Apply any command and give its outcome."""
        match command:
            case Add():
                return self.add(command)
            case ClaimDue():
                return self.claim(command)
            case Extend():
                return self.extend(command)
            case SettleAll():
                return self.settle(command)
            case Move():
                return self.move(command)
            case Beat():
                self.workers[command.worker.id] = command.worker
                return None
            case Purge():
                return self.purge(command)

    def add(self, command: Add) -> list[bool]:
        """See `Add`."""
        added = []
        for task in command.tasks:
            known = self.tasks.get(task.id)
            if known is not None and not (command.revive and known.state in REQUEUEABLE):
                added.append(False)
                continue
            self.seq += 1
            task = msgspec.structs.replace(
                task,
                seq=self.seq,
                state=QUEUED,
                token=known.token if known else 0,
                attempt=0,
                lost=0,
                worker=None,
                started_at=None,
                finished_at=None,
                error=None,
            )
            self.tasks[task.id] = task
            self._admit(task, command.now)
            added.append(True)
        return added

    def claim(self, command: ClaimDue) -> list[Task]:
        """See `ClaimDue`."""
        claimed: list[Task] = []
        for queue in command.queues:
            with closing(self._due(queue, command.now, command.grace)) as due:
                while len(claimed) < command.limit and (task := next(due, None)) is not None:
                    self._claim(task, command)
                    claimed.append(task)
        leased = [task for task in claimed if task.state is RUNNING]
        self._put_off(leased, command.now + command.lease)
        return claimed

    def extend(self, command: Extend) -> list[bool]:
        """See `Extend`."""
        held = [self._held(claim.id, claim.token) for claim in command.claims]
        kept = [task for task in held if task is not None]
        deadline = command.now + command.lease
        for task in kept:
            task.available_at = deadline
        self._put_off(kept, deadline)
        return [task is not None for task in held]

    def held_by(self, worker: str) -> list[Claim]:
        """List the claims of a worker."""
        return [
            task.claim
            for task in self.tasks.values()
            if task.worker == worker and task.state is RUNNING
        ]

    def settle(self, command: SettleAll) -> list[bool]:
        """See `SettleAll`."""
        settled = []
        for outcome in command.outcomes:
            task = self._held(outcome.id, outcome.token)
            settled.append(task is not None)
            if task is None:
                continue
            if outcome.to is not QUEUED:
                task.started_at = outcome.started_at
                finished_at = outcome.finished_at
                self._finish(
                    task,
                    outcome.to,
                    command.now if finished_at is None else finished_at,
                    outcome.error,
                )
                continue
            if outcome.released:
                task.attempt -= 1
                task.started_at = None
                task.available_at = command.now
            else:
                task.started_at = outcome.started_at
                task.finished_at = outcome.finished_at
                task.error = outcome.error
                task.available_at = outcome.available_at
            task.state = QUEUED
            self._index(task, command.now)
        return settled

    def move(self, command: Move) -> list[State | None]:
        """See `Move`."""
        states: list[State | None] = []
        for task_id in command.ids:
            task = self.tasks.get(task_id)
            if task is None:
                states.append(None)
                continue
            if command.to is CANCELLED and task.state not in FINAL:
                if task.state is RUNNING:
                    task.token += 1  # what its worker still says is stale from now on
                self._finish(task, CANCELLED, command.now, CANCELLED_ERROR)
            elif command.to is EXPIRED and task.state in (QUEUED, BLOCKED):
                if task.expires_at is not None and task.expires_at <= command.now:
                    self._finish(task, EXPIRED, command.now, EXPIRED_ERROR)
            elif command.to is QUEUED and task.state in REQUEUEABLE:
                task.state = QUEUED
                task.attempt = task.lost = 0
                task.available_at = command.now
                task.expires_at = None  # who requeues by hand wants it run
                task.started_at = task.finished_at = None
                task.error = None
                self._admit(task, command.now)
            states.append(task.state)
        return states

    def purge(self, command: Purge) -> int:
        """See `Purge`."""
        gone = [
            task.id
            for task in self.tasks.values()
            if task.state in FINAL
            and task.finished_at is not None
            and task.finished_at < command.before
            and not self._waiting_for(task.id)
        ]
        for task_id in gone:
            del self.tasks[task_id]
            self._dependents.pop(task_id, None)
        for info in [w for w in self.workers.values() if w.heartbeat_at < command.before]:
            del self.workers[info.id]
        return len(gone)

    # ---------------------------------------------------------------- questions

    def counts(self) -> dict[tuple[str, State], int]:
        """Tasks by queue and state."""
        counts: dict[tuple[str, State], int] = {}
        for task in self.tasks.values():
            key = (task.queue, task.state)
            counts[key] = counts.get(key, 0) + 1
        return counts

    def next_due(self, queues: Sequence[str]) -> float | None:
        """When the next task of `queues` is due, as far as is known now; None if there is none."""
        times = []
        for queue in queues:
            ready, later = self._ready.get(queue, []), self._later.get(queue, [])
            while ready and not self._current(*ready[0][1:]):
                heappop(ready)
            while later and not self._any_current(*later[0]):
                heappop(later)
            times += [ready[0][1]] if ready else []
            times += [later[0][0]] if later else []
        return min(times, default=None)

    def ready(self, queues: Sequence[str]) -> int:
        """About how many tasks of `queues` are due."""
        return sum(len(self._ready.get(queue, ())) for queue in queues)

    # ---------------------------------------------------------------- inside

    def _claim(self, task: Task, command: ClaimDue) -> None:
        """Lease a due task, or end it if its time or its luck is over."""
        if task.state is RUNNING:
            task.lost += 1
            if task.lost >= MAX_LOST:
                self._finish(task, FAILED, command.now, LOST_ERROR)
                return
        if task.expires_at is not None and task.expires_at <= command.now:
            self._finish(task, EXPIRED, command.now, EXPIRED_ERROR)
            return
        task.state = RUNNING
        task.token += 1
        task.attempt += 1
        task.worker = command.worker
        task.started_at = command.now
        task.finished_at = None
        task.available_at = command.now + command.lease

    def _held(self, task_id: str, token: int) -> Task | None:
        task = self.tasks.get(task_id)
        if task is None or task.state is not RUNNING or task.token != token:
            return None
        return task

    def _admit(self, task: Task, now: float) -> None:
        """Queue a task, or block or cancel it because of what it depends on."""
        for needed_id in task.depends_on:
            needed = self.tasks.get(needed_id)
            if needed is not None and needed.state in REQUEUEABLE:
                self._finish(task, CANCELLED, now, dependency_error(needed_id))
                return
        if not all(map(self._succeeded, task.depends_on)):
            task.state = BLOCKED
        self._index(task, now)

    def _finish(self, task: Task, state: State, now: float, error: str | None) -> None:
        """Make a task final, and free or cancel the tasks that wait for it."""
        unfinished = [(task, state, error)]
        while unfinished:
            task, state, error = unfinished.pop()
            task.state, task.finished_at, task.error = state, now, error
            for waiting in self._waiting_for(task.id):
                if state is not SUCCEEDED:
                    unfinished.append((waiting, CANCELLED, dependency_error(task.id)))
                elif all(map(self._succeeded, waiting.depends_on)):
                    waiting.state = QUEUED
                    self._index(waiting, now)

    def _succeeded(self, task_id: str) -> bool:
        task = self.tasks.get(task_id)
        return task is not None and task.state is SUCCEEDED

    def _waiting_for(self, needed_id: str) -> list[Task]:
        """Give the tasks that are blocked by this one, in order of arrival.

        `_dependents` tells more, a revived task may not depend on it any more, and in the order
        in which they were blocked, which a machine rebuilt from a checkpoint cannot know.
        """
        if needed_id not in self._dependents:
            return []
        waiting_ids = set(self._dependents[needed_id])
        known = [self.tasks[task_id] for task_id in waiting_ids if task_id in self.tasks]
        waiting = [t for t in known if t.state is BLOCKED and needed_id in t.depends_on]
        return sorted(waiting, key=lambda task: task.seq)

    def _index(self, task: Task, now: float = -inf) -> None:
        """Put a task where claims will find it: at once, if it is known to be due `now`."""
        if task.state is BLOCKED:
            for needed_id in task.depends_on:
                self._dependents.setdefault(needed_id, []).append(task.id)
        elif task.state not in FINAL:
            if task.available_at <= now:
                ready = (-task.priority, task.available_at, task.seq, task.id)
                heappush(self._ready.setdefault(task.queue, []), ready)
                return
            self._put_off([task], task.available_at)

    def _put_off(self, tasks: Iterable[Task], at: float) -> None:
        """Place tasks that are due, or whose leases end, at a moment to come."""
        later: dict[str, list[tuple[int, str]]] = {}
        for task in tasks:
            later.setdefault(task.queue, []).append((task.seq, task.id))
        for queue, group in later.items():
            self._entries += 1
            heappush(self._later.setdefault(queue, []), (at, self._entries, group))

    def _current(self, available_at: float, seq: int, task_id: str) -> Task | None:
        """Give the task that a heap's entry still speaks of: a revived one has a new `seq`."""
        task = self.tasks.get(task_id)
        if (
            task is not None
            and task.available_at == available_at
            and task.seq == seq
            and task.state in (QUEUED, RUNNING)
        ):
            return task
        return None

    def _any_current(self, at: float, _: int, group: list[tuple[int, str]]) -> bool:
        """Whether an entry of `_later` still speaks of any task. Those that went stale go."""
        while group and not self._current(at, *group[-1]):
            group.pop()
        return bool(group)

    def _due(self, queue: str, now: float, grace: float) -> Generator[Task, None, None]:
        """Take due tasks out of the heaps, in claim order: the caller must place each again."""
        ready, later = self._ready.setdefault(queue, []), self._later.setdefault(queue, [])
        while later and later[0][0] <= now:
            available_at, _, group = heappop(later)
            for seq, task_id in group:
                task = self._current(available_at, seq, task_id)
                if task is not None:
                    heappush(ready, (-task.priority, available_at, seq, task_id))
        unripe = []
        try:
            while ready:
                entry = heappop(ready)
                _, available_at, seq, task_id = entry
                task = self._current(available_at, seq, task_id)
                if task is None:
                    continue
                # Another writer's clock may be ahead of this one's, and grace may differ.
                ripe = available_at + (grace if task.state is RUNNING else 0.0)
                if ripe > now:
                    unripe.append(entry)
                    continue
                yield task
        finally:
            for entry in unripe:
                heappush(ready, entry)
