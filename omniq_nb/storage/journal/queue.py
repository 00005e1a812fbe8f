"""A task queue over any log.

A payload over 4 KiB goes into a blob, one for all the tasks of an `add`; in the state
and in the log the task's `call` is then a reference. A blob is deleted with the last task that
refers to it. A task that succeeded keeps no payload.

A bundle is a blob that tasks of several adds refer to. It is not deleted with the last of them,
for one more may be on its way, but found by a sweep when it has been unneeded for a day.

Where an entry costs a round trip, workers that wait are woken when tasks are about to be added, not
only when they were: their claims then come along in the same entry, behind the tasks.

A heartbeat is a command like any other and shares an entry with whatever is published at that
moment. It is not synced by itself, so on a local disk it costs a few dozen microseconds.

Not here: which transition is allowed (`omniq_nb.machine`), and who writes first (`replica`).
"""

import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from omniq_nb import machine
from omniq_nb.machine import Add, Beat, ClaimDue, Command, Extend, Machine, Move, Purge, SettleAll
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo
from omniq_nb.storage.base import BUNDLE_KEPT, Query, ResultStore, Scan, TaskQueue
from omniq_nb.storage.journal.log import Log
from omniq_nb.storage.journal.replica import Fold, Replica
from omniq_nb.storage.upkeep import Finding

LOG = logging.getLogger(__name__)

BLOB = 4096
"""Bytes of a payload above which it is kept beside the log."""

BIG_BLOB = 1024 * 1024
"""Bytes to read that are too many for an event loop."""

MANY = 500
"""Tasks in one call that are too many for an event loop."""

WORDS = frozenset({"id", "name", "queue", "batch", "schedule", "state", "worker"})
"""Columns by which a scan selects."""

_REFERENCE = b"\x00omniq reference\x00"
"""How a `call` begins that names a blob. A payload that begins so becomes a blob, however small."""


_LENGTH = 8
"""Bytes before those of a bundle, which tell how many these are."""


class _Reference(msgspec.Struct, frozen=True, array_like=True):
    blob: str
    offset: int
    length: int


def _reference(call: bytes) -> _Reference | None:
    if not call.startswith(_REFERENCE):
        return None
    return msgspec.msgpack.decode(call[len(_REFERENCE) :], type=_Reference)


class _Payload(NamedTuple):
    """What of a task lies in blobs, when the task itself is about to change or go."""

    call: bytes
    bundles: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> "_Payload":
        return cls(task.call, task.bundles)


class _Dump(msgspec.Struct):
    tasks: list[Task]
    workers: list[WorkerInfo]
    seq: int


class QueueFold(Fold[Command]):
    """A machine, and how many of its tasks refer to each blob, bundles among them."""

    version = machine.VERSION
    commands = Command

    def __init__(self, dump: bytes | None) -> None:
        if dump is None:
            self.machine = Machine()
        else:
            state = msgspec.msgpack.decode(dump, type=_Dump)
            self.machine = Machine(state.tasks, state.workers, state.seq)
        self.blobs: Counter[str] = Counter()
        self.unneeded: set[str] = set()
        for task in self.machine.tasks.values():
            self._hold(task)

    def dump(self) -> bytes:
        """See `Fold`."""
        tasks, workers = self.machine.tasks.values(), self.machine.workers.values()
        return msgspec.msgpack.encode(_Dump(list(tasks), list(workers), self.machine.seq))

    def apply(self, command: Command) -> object:
        """Apply to the machine, and keep account of the payloads."""
        match command:
            case Add():
                return self._add(command)
            case SettleAll():
                settled = self.machine.settle(command)
                for outcome, was_settled in zip(command.outcomes, settled, strict=True):
                    if was_settled and outcome.to is State.SUCCEEDED:
                        task = self.machine.tasks[outcome.id]
                        self._release(task)
                        task.call, task.bundles = b"", ()
                return settled
            case Purge():
                before = {
                    id: _Payload.of(task) for id, task in self.machine.tasks.items() if task.call
                }
                purged = self.machine.purge(command)
                for id in before.keys() - self.machine.tasks.keys():
                    self._release(before[id])
                return purged
            case _:
                return self.machine.apply(command)

    def take_unneeded(self) -> set[str]:
        """Give the blobs that lost their last task since this was last called."""
        unneeded, self.unneeded = self.unneeded, set()
        return unneeded

    def _add(self, command: Add) -> list[bool]:
        tasks = self.machine.tasks
        replaced = {}
        if command.revive:
            replaced = {
                task.id: _Payload.of(tasks[task.id]) for task in command.tasks if task.id in tasks
            }
        added = self.machine.add(command)
        for task in command.tasks:
            self._hold(task)
        for task, was_added in zip(command.tasks, added, strict=True):
            if not was_added:
                self._release(task)
            elif task.id in replaced:
                self._release(replaced.pop(task.id))
        return added

    def _hold(self, payload: _Payload | Task) -> None:
        reference = _reference(payload.call)
        if reference is not None:
            self.blobs[reference.blob] += 1
        self.blobs.update(payload.bundles)

    def _release(self, payload: _Payload | Task) -> None:
        reference = _reference(payload.call)
        if reference is not None and self._lost_last(reference.blob):
            self.unneeded.add(reference.blob)
        for bundle in payload.bundles:
            self._lost_last(bundle)

    def _lost_last(self, blob: str) -> bool:
        self.blobs[blob] -= 1
        if self.blobs[blob]:
            return False
        del self.blobs[blob]
        return True


class JournalTaskQueue(TaskQueue):
    """See the module.

    Parameters
    ----------
    log : Log
        Its own: nothing else in this process may use it.
    """

    def __init__(self, log: Log) -> None:
        self.immediate = log.immediate  # type: ignore[misc]
        self.rest = log.rest
        self._replica = Replica(log, QueueFold)
        # Bundles of a log that keeps nothing, and when each was put.
        self._bundles: dict[str, tuple[bytes, float]] = {}
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Forget who waits and adds: in a forked child nobody does."""
        self._pid = os.getpid()
        self._awaited: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()

    async def open(self) -> None:
        """See `Store`."""
        await self._replica.open()

    async def close(self) -> None:
        """See `Store`."""
        await self._replica.close()

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        """See `TaskQueue`. One entry, however many tasks; at most one blob."""
        if not tasks:
            return []
        if self._replica.stored:
            tasks = await self._without_big_calls(tasks)
        now = self._replica.now()
        command = Add(tasks=list(tasks), now=now, revive=revive)
        slow = len(tasks) > MANY
        if self._pid != os.getpid():
            self._start_afresh()
        due = {task.queue for task in tasks if task.available_at <= now}
        added: list[bool]
        if self.immediate or not due & self._awaited.keys():
            added = await self._publish(command, slow)
        else:
            with _counted(self._coming, due):
                self._replica.bell.ring()
                added = await self._publish(command, slow, company=True)
        return added

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        """See `TaskQueue`. Nothing is written while nothing is due."""
        now, queues = self._replica.now(), tuple(queues)
        coming, many = self._is_coming(queues), limit
        if not coming:
            due, ready = await self._replica.read(
                lambda fold: (fold.machine.next_due(queues), fold.machine.ready(queues)),
                enough=lambda known: known[0] is not None and known[0] <= now,
                idle=True,
            )
            if due is None or due > now:
                return []
            many = min(limit, ready)
        if limit < 1:
            return []
        command = ClaimDue(queues=queues, limit=limit, lease=lease, worker=worker, now=now)
        tasks = await self._replica.publish(
            command,
            durable=False,
            take=lambda claimed, _: [copy(task) for task in claimed],
            slow=many > MANY,
        )
        if coming:  # it came, in an entry before this command or in the same one
            for queue in queues:
                self._coming.pop(queue, None)
        return await self._with_big_calls(tasks)

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """See `TaskQueue`."""
        if not claims:
            return []
        command = Extend(claims=list(claims), lease=lease, now=self._replica.now())
        # An entry of our own wakes who waits in this process only if it is durable.
        return await self._replica.publish(command, durable=lease <= 0, take=_as_bools)

    async def held_by(self, worker: str) -> list[Claim]:
        """See `TaskQueue`."""
        return await self._replica.read(lambda fold: fold.machine.held_by(worker), slow=True)

    def commits_with(self, results: ResultStore) -> bool:
        """Never: results lie elsewhere."""
        return False

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        """See `TaskQueue`."""
        if results:
            raise ValueError("This queue cannot store results: see commits_with().")
        if not outcomes:
            return []
        command = SettleAll(outcomes=list(outcomes), now=self._replica.now())
        settled: list[bool] = await self._publish(command, slow=len(outcomes) > MANY)
        return settled

    async def transition(self, ids: Sequence[str], to: State) -> list[State | None]:
        """See `TaskQueue`."""
        if not ids:
            return []
        command = Move(ids=list(ids), to=to, now=self._replica.now())
        states: list[State | None] = await self._publish(command, slow=len(ids) > MANY)
        return states

    async def put_bundle(self, name: str, data: bytes) -> None:
        """See `TaskQueue`."""
        self._replica.check_open()
        stored = self._replica.stored
        if stored is None:
            self._bundles[name] = data, self._replica.now()
        else:
            parts = [len(data).to_bytes(_LENGTH, "big"), data]
            await self._replica.aside(lambda: stored.put_blob(name, parts), slow=True)

    async def get_bundle(self, name: str) -> bytes | None:
        """See `TaskQueue`."""
        self._replica.check_open()
        stored = self._replica.stored
        if stored is None:
            data, _ = self._bundles.get(name, (None, 0.0))
            return data

        async def read() -> bytes | None:
            head = await stored.get_blob(name, [(0, _LENGTH)])
            if head is None:
                return None
            found = await stored.get_blob(name, [(_LENGTH, int.from_bytes(head[0], "big"))])
            return None if found is None else found[0]

        return await self._replica.aside(read, slow=True)

    async def get(self, ids: Sequence[str]) -> list[Task | None]:
        """See `TaskQueue`."""

        def look(fold: QueueFold) -> list[Task | None]:
            tasks = fold.machine.tasks
            return [
                replace(task, call=b"") if (task := tasks.get(id)) is not None else None
                for id in ids
            ]

        return await self._replica.read(look, slow=len(ids) > MANY)

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """See `TaskQueue`. Other processes are noticed by looking for their next entry."""

        def due(fold: QueueFold) -> float | None:
            return 0.0 if self._is_coming(queues) else fold.machine.next_due(queues)

        with _counted(self._awaited, () if self.immediate else queues):
            await self._replica.wait(due, timeout)

    async def counts(self) -> dict[tuple[str, State], int]:
        """See `TaskQueue`."""
        return await self._replica.read(lambda fold: fold.machine.counts(), slow=True)

    async def workers(self, beat: WorkerInfo | None = None) -> list[WorkerInfo]:
        """See `TaskQueue`."""
        if beat is not None:
            command = Beat(worker=copy(beat))
            return await self._replica.publish(
                command, durable=False, take=lambda _, fold: _workers(fold)
            )
        return await self._replica.read(_workers)

    async def scan(self, query: Query) -> Scan:
        """See `TaskQueue`."""
        tasks = await self._replica.read(
            lambda fold: [
                copy(task) for task in fold.machine.tasks.values() if _asked(task, query)
            ],
            slow=True,
        )

        async def table() -> Scan:
            from omniq_nb.storage import tables  # pyarrow takes a while to import

            return Scan(tables.table(tasks, tables.select(tables.TASKS, query.columns)))

        return await self._replica.aside(table, slow=True)

    async def purge(self, before: float) -> int:
        """See `TaskQueue`."""
        purged: int = await self._publish(Purge(before=before), slow=True)
        needed = await self._replica.read(lambda fold: frozenset(fold.blobs), slow=True)
        stored = self._replica.stored
        if stored is None:
            horizon = self._replica.now() - BUNDLE_KEPT
            for name, (_, put_at) in list(self._bundles.items()):
                if put_at < horizon and name not in needed:
                    del self._bundles[name]
        else:
            await self._replica.aside(lambda: stored.sweep_blobs(needed), slow=True)
        return purged

    async def compact(self) -> None:
        """See `Kept`."""
        await self._replica.compact()

    async def inspect(self, repair: bool) -> Sequence[Finding]:
        """See `Kept`."""
        return await self._replica.inspect(repair)

    # ---------------------------------------------------------------- inside

    def _is_coming(self, queues: Sequence[str]) -> bool:
        """Whether this process is about to add tasks that are due to one of these queues."""
        if self._pid != os.getpid():
            self._start_afresh()
        return not self._coming.keys().isdisjoint(queues)

    async def _publish(self, command: Command, slow: bool, company: bool = False) -> Any:
        """Publish facts; then delete the blobs that nobody needs any more.

        Only then: facts on the disk imply that everything before them is on the disk too, so
        no power cut can bring back a task whose blob is gone.
        """

        def take(outcome: object, fold: QueueFold) -> tuple[object, set[str]]:
            return outcome, fold.take_unneeded()

        outcome, unneeded = await self._replica.publish(command, True, take, slow, company)
        if self._replica.stored:
            await self._replica.stored.delete_blobs(unneeded)
        return outcome

    async def _without_big_calls(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Replace big payloads by references to a new blob."""
        stored = self._replica.stored
        assert stored is not None
        if not any(_is_big(task.call) for task in tasks):
            return tasks
        blob = secrets.token_hex(16)
        parts: list[bytes] = []
        offset = 0
        referring = []
        for task in tasks:
            if _is_big(task.call):
                reference = _Reference(blob, offset, len(task.call))
                parts.append(task.call)
                offset += len(task.call)
                task = replace(task, call=_REFERENCE + msgspec.msgpack.encode(reference))
            referring.append(task)
        await self._replica.aside(lambda: stored.put_blob(blob, parts), slow=True)
        return referring

    async def _with_big_calls(self, tasks: list[Task]) -> list[Task]:
        """Replace references by payloads.

        A task whose blob is gone was lost to another worker that finished it in between.
        """
        wanted: dict[str, list[tuple[Task, _Reference]]] = {}
        for task in tasks:
            if (reference := _reference(task.call)) is not None:
                wanted.setdefault(reference.blob, []).append((task, reference))
        stored = self._replica.stored
        if not wanted or stored is None:
            return tasks
        gone = set()
        for blob, group in wanted.items():
            spans = [(reference.offset, reference.length) for _, reference in group]
            big = sum(length for _, length in spans) > BIG_BLOB
            calls = await self._replica.aside(partial(stored.get_blob, blob, spans), slow=big)
            if calls is None:
                LOG.warning("The payload of %d claimed tasks is gone", len(group))
                gone |= {task.id for task, _ in group}
                continue
            for (task, _), call in zip(group, calls, strict=True):
                task.call = call
        return [task for task in tasks if task.id not in gone]


@contextmanager
def _counted(counter: Counter[str], names: Iterable[str]) -> Iterator[None]:
    """Count these names for as long as the block runs."""
    counted = Counter(set(names))
    counter.update(counted)
    try:
        yield
    finally:
        counter.subtract(counted)
        for name in counted:
            if counter[name] <= 0:
                del counter[name]


def _is_big(call: bytes) -> bool:
    return len(call) > BLOB or call.startswith(_REFERENCE)


def _workers(fold: QueueFold) -> list[WorkerInfo]:
    return [copy(info) for info in fold.machine.workers.values()]


def _as_bools(outcome: list[bool], _: QueueFold) -> list[bool]:
    return outcome


def _asked(task: Task, query: Query) -> bool:
    """Whether a scan wants it, by the columns that hold a word."""
    if query.since is not None and task.created_at < query.since:
        return False
    if query.until is not None and task.created_at >= query.until:
        return False
    return all(
        getattr(task, column) in accepted
        for column, accepted in query.equals.items()
        if column in WORDS
    )
