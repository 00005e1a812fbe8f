"""Executors that are a number of slot threads, each busy with one attempt at a time."""

import contextlib
import math
import threading
import time
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import ClassVar

import msgspec

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Fetch, no_bundles
from omniq_nb.core.context import Reason
from omniq_nb.core.executors.base import Executor
from omniq_nb.core.run import Attempt, Outcome
from omniq_nb.models.task import Task

LEAVING = 10.0
"""Seconds that slot threads have to clean up after the last attempt."""

HANDOVER = 0.001
"""Seconds, at most, for which who submits leaves the interpreter to a slot thread that waits."""


class Given(msgspec.Struct):
    """A task that a slot has taken.

    Attributes
    ----------
    task : Task
        As submitted.
    number : int
        How many tasks its child was sent until then, where there is a child.
    reason : str or None
        Why it is to be stopped as soon as it is under way.
    """

    task: Task
    number: int = 0
    reason: Reason | None = None


class Slot(AbstractContextManager["Slot"]):
    """What a slot thread runs attempts with. It is entered for as long as that thread lives.

    Attributes
    ----------
    attempt : Attempt or None
        What it is at.
    ahead : deque of Given
        What it has taken besides, in order. It starts them by itself; the first may be started,
        then the attempt is over though its outcome is still on its way.
    """

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.ahead: deque[Given] = deque()

    @abstractmethod
    def prepare(self) -> None:
        """Get ready for the next attempt, before its time begins to count."""

    @abstractmethod
    def run(self, attempt: Attempt) -> Outcome:
        """Make the attempt that `next` gave the task of."""

    def over(self) -> list[Outcome]:
        """Give the outcomes of what was ahead, as far as it is over already."""
        return []

    # The executor's lock is held while these are called.

    def next(self, queued: OrderedDict[str, Task], share: int) -> Given | None:
        """Give the next task, and take it from the queue, with others if it pays.

        Parameters
        ----------
        queued : OrderedDict
            What nobody has taken, in order.
        share : int
            How many of them are a fair share.
        """
        return Given(queued.popitem(last=False)[1]) if queued else None

    def recall(self) -> list[Task]:
        """Give back what is ahead and not started."""
        return []

    def abandon(self) -> list[Task]:
        """Give back what is ahead, and start nothing any more."""
        return []


class SlotExecutor(Executor):
    """Slot threads fed by one queue, and a watcher thread once a task has a timeout.

    When an attempt's time is over it is settled at once. Its thread, which may be stuck, is no
    longer a slot and ends when it can; a new one takes its place.
    """

    advice: ClassVar[str]
    """What a timeout's message says besides the time."""

    kills: ClassVar[bool]
    """Whether interrupting an attempt surely ends it, so that its thread can be waited for."""

    def __init__(
        self,
        concurrency: int,
        codec: Codec,
        notify: Callable[[], None],
        prefer: str,
        fetch: Fetch = no_bundles,
    ) -> None:
        super().__init__(concurrency, codec, notify, prefer, fetch)
        # Each is a reason to look around: a task that is queued, a thread that is to leave.
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._slots: dict[threading.Thread, Slot] = {}
        self._threads: set[threading.Thread] = set()
        # Held from when a slot thread is to take a task until it does.
        self._handover = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._next_deadline = math.inf
        self._stopped = False

    @abstractmethod
    def _slot(self) -> Slot:
        """Make what one slot thread needs."""

    def start(self) -> None:
        """Start the slot threads."""
        self.resize(self._concurrency)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue for execution.

        If a slot is free, the calling thread waits until it has taken a task. Else it would go on
        with Python's global lock, and the slot could not start before that is let go.
        """
        with self._lock:
            free = not self._queued and len(self._running) < len(self._slots)
            for task in tasks:
                self._queued[task.id] = task
            if free:
                self._handover.acquire(blocking=False)
        self._call(len(tasks))
        if free and tasks:
            self._handover.acquire(timeout=HANDOVER)

    def backlog(self) -> int:
        """Count the submitted tasks that are not started, as far as is known."""
        with self._lock:
            return len(self._queued) + sum(len(slot.ahead) for slot in self._slots.values())

    def withdraw(self) -> list[Task]:
        """Take back what is not started."""
        with self._lock:
            tasks = [task for slot in self._slots.values() for task in slot.recall()]
        return tasks + super().withdraw()

    def resize(self, concurrency: int) -> None:
        """Start slot threads, or let the first that are free leave."""
        with self._lock:
            self._concurrency = concurrency
            surplus = len(self._slots) - concurrency
            self._fill()
        self._call(surplus)

    def stop(self, timeout: float | None) -> list[Task]:
        """Let the slot threads leave; after `timeout` seconds interrupt and abandon the rest."""
        abandoned = self.withdraw()
        self.resize(0)
        with self._lock:
            self._changed.wait_for(lambda: not self._slots, timeout)
            for thread, slot in list(self._slots.items()):
                abandoned += slot.abandon()
                if slot.attempt in self._running:
                    self._give_up(thread)
        abandoned += self._abandon()
        with self._lock:
            self._stopped = True
            self._changed.notify_all()
            threads = [*self._threads, *([self._watcher] if self._watcher else [])]
        deadline = time.monotonic() + LEAVING
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return abandoned

    def _call(self, times: int) -> None:
        for _ in range(times):
            self._calls.put(None)

    def _fill(self) -> None:
        """Start the slot threads that are missing. The lock is held."""
        while len(self._slots) < self._concurrency:
            slot = self._slot()
            thread = threading.Thread(
                target=self._work, args=(slot,), name=f"omniq {self.kind}", daemon=True
            )
            self._slots[thread] = slot
            self._threads.add(thread)
            thread.start()

    def _work(self, slot: Slot) -> None:
        """Live the life of a slot thread."""
        thread = threading.current_thread()
        try:
            with slot:
                while not self._leaves(thread, slot):
                    slot.prepare()
                    attempt = self._next(slot)
                    if attempt is not None:
                        self._settle(attempt, slot.run(attempt))
                        for outcome in slot.over():
                            self._publish(outcome)
        finally:
            with self._lock:
                self._threads.discard(thread)

    def _leaves(self, thread: threading.Thread, slot: Slot) -> bool:
        """Whether this thread is no slot any more, or one too many."""
        with self._lock:
            if thread in self._slots and len(self._slots) > self._concurrency:
                self._put_back(slot.recall())
                if not slot.ahead:
                    del self._slots[thread]
                    self._changed.notify_all()
            return thread not in self._slots

    def _next(self, slot: Slot) -> Attempt | None:
        """Wait for something to do. None: look around."""
        called = not slot.ahead
        if called:
            self._calls.get()
        with self._lock:
            before = len(self._queued)
            given = slot.next(self._queued, before // max(1, len(self._slots)))
            besides = before - len(self._queued) - called
            if besides > 0:  # that needs nobody else to look around
                with contextlib.suppress(Empty):
                    for _ in range(besides):
                        self._calls.get_nowait()
            if given is None:
                return None
            attempt = self._attempt(given.task)
            attempt.reason = given.reason
            self._running.add(attempt)
            slot.attempt = attempt
            if attempt.deadline < self._next_deadline:
                self._watch()
            if self._handover.locked():
                self._handover.release()
            return attempt

    def _put_back(self, tasks: Sequence[Task]) -> None:
        """Queue tasks that a slot had taken before all others. The lock is held."""
        for task in reversed(tasks):
            self._queued[task.id] = task
            self._queued.move_to_end(task.id, last=False)
        self._call(len(tasks))

    def _unstarted(self, task_id: str, reason: Reason) -> Task | None:
        """Also one that was sent ahead. If it is started by now, it will be stopped."""
        for slot in self._slots.values():
            if any(given.task.id == task_id for given in slot.ahead):
                self._put_back(slot.recall())
                for given in slot.ahead:
                    if given.task.id == task_id and given.reason is None:
                        given.reason = reason
        return super()._unstarted(task_id, reason)

    # ---------------------------------------------------------------- timeouts

    def _watch(self) -> None:
        """Have the watcher look at the deadlines anew. The lock is held."""
        self._changed.notify_all()
        if self._watcher is None:
            self._watcher = threading.Thread(
                target=self._watch_deadlines, name=f"omniq {self.kind} timeouts", daemon=True
            )
            self._watcher.start()

    def _watch_deadlines(self) -> None:
        """Settle the attempts whose time is over.

        It wakes at the earliest deadline that it knew of, or for an earlier one, not for each
        attempt: most end long before their deadline.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                late = [attempt for attempt in self._running if attempt.deadline <= now]
                if not late:
                    if self._stopped:
                        return
                    deadlines = (attempt.deadline for attempt in self._running)
                    self._next_deadline = min(deadlines, default=math.inf)
                    pause = self._next_deadline - now
                    self._changed.wait(None if pause == math.inf else pause)
                    continue
            for attempt in late:
                self._replace(attempt)

    def _replace(self, attempt: Attempt) -> None:
        """Settle a late attempt and put another thread in the place of its own."""
        if not self._settle_late(attempt, self.advice):
            return
        with self._lock:
            for thread, slot in self._slots.items():
                # With something ahead it is not stuck: it has gone on.
                if slot.attempt is attempt and not slot.ahead:
                    self._give_up(thread)
                    break
            self._fill()

    def _give_up(self, thread: threading.Thread) -> None:
        """Let a thread be no slot any more, though it may be stuck. The lock is held."""
        del self._slots[thread]
        self._changed.notify_all()
        if not self.kills:
            self._threads.discard(thread)  # nobody can wait for it
