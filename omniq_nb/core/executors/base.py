"""The interface of all executors, and the bookkeeping that they share."""

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import ClassVar

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Fetch, no_bundles
from omniq_nb.core.context import Progress, Reason
from omniq_nb.core.run import Attempt, Outcome
from omniq_nb.errors import TaskTimeout
from omniq_nb.models.task import State, Task

CANCELLED_UNSTARTED = "TaskCancelled: cancelled before it started"


class Executor(ABC):
    """Runs tasks, a number of them at the same time.

    Each task that is submitted comes back exactly once: as an `Outcome` of `take`, or from
    `withdraw`, or from `stop`. All methods may be called from any thread, `take` from one at a
    time.

    Parameters
    ----------
    concurrency : int
        Tasks run at the same time.
    codec : Codec
        Opens calls and packs results.
    notify : callable
        Called from any thread when `take` has something new; not again before the next `take`.
    prefer : str
        How results are packed, where there is a choice.
    fetch : callable
        Gives the bundles that calls refer to.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        concurrency: int,
        codec: Codec,
        notify: Callable[[], None],
        prefer: str,
        fetch: Fetch = no_bundles,
    ) -> None:
        self._concurrency = concurrency
        self._codec = codec
        self._notify = notify
        self._prefer = prefer
        self._fetch = fetch
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queued: OrderedDict[str, Task] = OrderedDict()
        self._running: set[Attempt] = set()
        self._outcomes: deque[Outcome] = deque()
        self._progress: dict[str, Progress] = {}
        # Held from a notification until the next take: a test-and-set that costs nothing.
        self._notified = threading.Lock()

    @abstractmethod
    def start(self) -> None:
        """Begin to run what is submitted."""

    @abstractmethod
    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue for execution. Blocks for a moment at most."""

    def take(self) -> tuple[list[Outcome], list[Progress]]:
        """Take what finished and what was reported since the last take, oldest first."""
        if self._notified.locked():
            self._notified.release()
        outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        with self._lock:
            progress, self._progress = list(self._progress.values()), {}
        return outcomes, progress

    def printed(self) -> list[tuple[Task, int, str]]:
        """Take what attempts under way printed since the last call, if they run for a while.

        With each text goes the number of characters that its attempt printed before.
        """
        with self._lock:
            attempts = list(self._running)
        looks = [(attempt.task, attempt.look()) for attempt in attempts]
        return [(task, *look) for task, look in looks if look is not None]

    def running(self) -> dict[str, float]:
        """List the tasks really under way, with the time at which each was started."""
        with self._lock:
            return {attempt.task.id: attempt.started_at for attempt in self._running}

    def backlog(self) -> int:
        """Count the submitted tasks that are not started."""
        return len(self._queued)

    def withdraw(self) -> list[Task]:
        """Take back what is not started."""
        with self._lock:
            tasks, self._queued = list(self._queued.values()), OrderedDict()
        return tasks

    def cancel(self, task_id: str, reason: Reason) -> None:
        """End a task. If it is not started, it never will be."""
        with self._lock:
            queued = self._unstarted(task_id, reason)
            running = [attempt for attempt in self._running if attempt.task.id == task_id]
        if queued is not None:
            now = time.time()
            self._publish(
                Outcome(
                    task=queued,
                    to=State.CANCELLED,
                    started_at=now,
                    finished_at=now,
                    error=CANCELLED_UNSTARTED,
                    released=True,
                )
            )
        for attempt in running:
            attempt.stop(reason)

    @abstractmethod
    def resize(self, concurrency: int) -> None:
        """Run this many at the same time. What runs beyond that finishes."""

    @abstractmethod
    def stop(self, timeout: float | None) -> list[Task]:
        """Wait for what runs, at most `timeout` seconds; end or abandon the rest.

        Blocks the calling thread. What finished is there for a last `take`.

        Returns
        -------
        list of Task
            Those without an outcome: not started, or abandoned.
        """

    # ---------------------------------------------------------------- for the kinds

    def _unstarted(self, task_id: str, reason: Reason) -> Task | None:
        """Take a task that is to be cancelled, if it is not started. The lock is held."""
        return self._queued.pop(task_id, None)

    def _attempt(self, task: Task) -> Attempt:
        return Attempt(task, self._codec, self._prefer, self._report, self._fetch)

    def _settle(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Publish the outcome. False: the attempt was given up meanwhile, nobody wants it."""
        with self._lock:
            if attempt not in self._running:
                return False
            self._running.remove(attempt)
            if not self._running:
                self._changed.notify_all()
        attempt.over = True
        self._publish(outcome)
        return True

    def _settle_late(self, attempt: Attempt, advice: str) -> bool:
        """Fail an attempt whose time is over, then ask it to end. False: it ended by itself."""
        error = TaskTimeout(f"ran longer than {attempt.task.timeout:g} s{advice}")
        settled = self._settle(attempt, attempt.fail(error))
        if settled:
            attempt.stop("timeout")
        return settled

    def _abandon(self) -> list[Task]:
        """Give up every attempt, and ask each to end."""
        with self._lock:
            attempts, self._running = self._running, set()
        for attempt in attempts:
            attempt.over = True
            attempt.stop("lost")
        return [attempt.task for attempt in attempts]

    def _publish(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._announce()

    def _report(self, progress: Progress) -> None:
        with self._lock:
            self._progress[progress.task.id] = progress
        self._announce()

    def _announce(self) -> None:
        if self._notified.acquire(blocking=False):
            self._notify()
