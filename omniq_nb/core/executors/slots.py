"""Executors that are a number of slot threads, each busy with one attempt at a time."""

import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import ClassVar, Protocol

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Fetch, no_bundles
from omniq_nb.core.executors.base import Executor
from omniq_nb.core.run import Attempt, Outcome
from omniq_nb.models.task import Task

LEAVING = 10.0
"""Seconds that slot threads have to clean up after the last attempt."""


class Slot(Protocol):
    """What a slot thread runs attempts with."""

    def prepare(self) -> None:
        """Get ready for the next attempt, before its time begins to count."""

    def run(self, attempt: Attempt) -> Outcome:
        """Make the attempt."""


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
        # Ids, not tasks: who takes an id out of `_queued` has the task, once. None: look around.
        self._feed: SimpleQueue[str | None] = SimpleQueue()
        self._slots: dict[threading.Thread, Attempt | None] = {}
        self._threads: set[threading.Thread] = set()
        self._watcher: threading.Thread | None = None
        self._next_deadline = math.inf
        self._stopped = False

    @abstractmethod
    def _slot(self) -> AbstractContextManager[Slot]:
        """Set up what one slot thread needs, for as long as it lives."""

    def start(self) -> None:
        """Start the slot threads."""
        self.resize(self._concurrency)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue for execution."""
        with self._lock:
            for task in tasks:
                self._queued[task.id] = task
        for task in tasks:
            self._feed.put(task.id)

    def resize(self, concurrency: int) -> None:
        """Start slot threads, or let the first that are free leave."""
        with self._lock:
            self._concurrency = concurrency
            surplus = len(self._slots) - concurrency
            self._fill()
        for _ in range(surplus):
            self._feed.put(None)

    def stop(self, timeout: float | None) -> list[Task]:
        """Let the slot threads leave; after `timeout` seconds interrupt and abandon the rest."""
        abandoned = self.withdraw()
        self.resize(0)
        with self._lock:
            self._changed.wait_for(lambda: not self._slots, timeout)
            for thread, attempt in list(self._slots.items()):
                if attempt in self._running:
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

    def _fill(self) -> None:
        """Start the slot threads that are missing. The lock is held."""
        while len(self._slots) < self._concurrency:
            thread = threading.Thread(target=self._work, name=f"omniq {self.kind}", daemon=True)
            self._slots[thread] = None
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        """Live the life of a slot thread."""
        thread = threading.current_thread()
        try:
            with self._slot() as slot:
                while not self._leaves(thread):
                    slot.prepare()
                    attempt = self._next(thread)
                    if attempt is not None:
                        self._settle(attempt, slot.run(attempt))
        finally:
            with self._lock:
                self._threads.discard(thread)

    def _leaves(self, thread: threading.Thread) -> bool:
        """Whether this thread is no slot any more, or one too many."""
        with self._lock:
            if thread in self._slots and len(self._slots) > self._concurrency:
                del self._slots[thread]
                self._changed.notify_all()
            return thread not in self._slots

    def _next(self, thread: threading.Thread) -> Attempt | None:
        """Wait for something to do. None: look around."""
        task_id = self._feed.get()
        if task_id is None:
            return None
        with self._lock:
            task = self._queued.pop(task_id, None)
            if task is None:
                return None
            attempt = self._attempt(task)
            self._running.add(attempt)
            self._slots[thread] = attempt
            if attempt.deadline < self._next_deadline:
                self._watch()
            return attempt

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
            for thread, busy_with in self._slots.items():
                if busy_with is attempt:
                    self._give_up(thread)
                    break
            self._fill()

    def _give_up(self, thread: threading.Thread) -> None:
        """Let a thread be no slot any more, though it may be stuck. The lock is held."""
        del self._slots[thread]
        self._changed.notify_all()
        if not self.kills:
            self._threads.discard(thread)  # nobody can wait for it
