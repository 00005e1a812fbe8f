"""Waiting for tasks to end, whoever runs them.

A worker of this process tells at once; for tasks that run elsewhere the queue is asked, about
some at a time: what it costs to ask, and how late the last of many is heard of, does not grow
with their number. Waiting never touches the work.

A task may be queued again, and waited for again, while news of its attempt before is on the
way. So whoever brings news says *since* when it holds (`Outcomes.now`, before the queue was
asked or told), and it reaches only those who waited by then. For the others the queue is asked.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice

from omniq_nb.errors import StoreError, UnknownTask
from omniq_nb.models.result import Result
from omniq_nb.models.task import State, Task
from omniq_nb.storage.base import Stores

POLL_FIRST = 0.01
POLL_LAST = 0.25
"""Seconds between two questions to the queue, at first and after a while."""

POLL_SHARE = 0.05
"""The share of the time that asking may take."""

AT_ONCE = 2000
"""The most tasks that are asked about at once, while waiting."""

NEWS = 0.25
"""If this share of them has ended, there is more news to be had: it is asked again at once."""

TROUBLE = 5.0
"""Seconds until the next question when the queue could not be asked."""

log = logging.getLogger("omniq_nb.outcomes")


def result_of(task: Task) -> Result:
    """What is known of an ended task whose result is not stored: everything but its value."""
    return Result(
        task_id=task.id,
        token=task.token,
        name=task.name,
        queue=task.queue,
        batch=task.batch,
        position=task.position,
        arguments=task.arguments,
        attempt=task.attempt,
        worker=task.worker,
        state=task.state,
        created_at=task.created_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
        error=task.error,
    )


class Waiting:
    """A set of tasks that somebody waits for.

    Attributes
    ----------
    done : concurrent.futures.Future
        Resolves to ``{task id: result}`` when the last one ended; fails if a task is unknown.
    """

    def __init__(self, ids: Iterable[str], on_result: Callable[[Result], None] | None) -> None:
        self.open = dict.fromkeys(ids)  # in the order in which they probably end
        self.results: dict[str, Result] = {}
        self.done: Future[dict[str, Result]] = Future()
        self.number = 0  # given by `Outcomes`: who came earlier has a lower one
        self._on_result = on_result

    def settle(self, result: Result) -> None:
        """One of them ended."""
        self.open.pop(result.task_id, None)
        self.results[result.task_id] = result
        if self._on_result is not None:
            self._on_result(result)
        if not self.open and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: BaseException) -> None:
        """One of them will never end."""
        if not self.done.done():
            self.done.set_exception(error)


class Outcomes:
    """Brings the news of ended tasks to those who wait.

    Parameters
    ----------
    stores : Stores
        Asked about tasks that end elsewhere.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        # Reentrant: a callback of a future that resolves may wait for the next one.
        self._lock = threading.RLock()
        self._waiting: dict[str, list[Waiting]] = {}
        self._came = 0
        self._turn = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause = POLL_FIRST
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start to ask on the running loop, whenever somebody waits."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Stop asking. Who still waits is told that the client is closed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        with self._lock:
            waiting = {id(w): w for group in self._waiting.values() for w in group}
            self._waiting.clear()
        for one in waiting.values():
            if not one.done.done():
                one.done.cancel()

    async def wait(
        self, ids: Iterable[str], on_result: Callable[[Result], None] | None = None
    ) -> Waiting:
        """Wait for these tasks. `on_result` is called for each that ends, from any thread."""
        waiting = Waiting(ids, on_result)
        if not waiting.open:
            waiting.done.set_result({})
            return waiting
        with self._lock:
            self._came += 1
            waiting.number = self._came
            for task_id in waiting.open:
                self._waiting.setdefault(task_id, []).append(waiting)
        ids, since = list(waiting.open), self.now()
        await self._tell(ids, await self._look(ids), since)
        if not waiting.done.done():
            # Not at once: it was asked just now, and most tasks of this process end sooner.
            self._keep_asking(POLL_FIRST)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            for task_id in waiting.open:
                group = self._waiting.get(task_id)
                if group is not None and waiting in group:
                    group.remove(waiting)
                    if not group:
                        del self._waiting[task_id]

    def now(self) -> int:
        """The moment, for `publish`: who comes to wait later has not waited by then."""
        return self._came

    def publish(self, results: Sequence[Result], since: int) -> None:
        """These tasks ended, settled in the queue by exactly these results.

        Parameters
        ----------
        results : sequence of Result
            At most one for each task.
        since : int
            `now` before the queue was asked about these tasks, or told of their end.
        """
        if not self._waiting:
            return
        with self._lock:
            for result in results:
                for waiting in self._waited_by(since, result.task_id):
                    waiting.settle(result)
            later = any(result.task_id in self._waiting for result in results)
        if later:
            self._keep_asking(0.0)

    def _waited_by(self, since: int, task_id: str) -> list[Waiting]:
        """Take out those who waited for a task by then; those who came later stay."""
        group = self._waiting.pop(task_id, [])
        later = [waiting for waiting in group if waiting.number > since]
        if later:
            self._waiting[task_id] = later
        return [waiting for waiting in group if waiting.number <= since]

    def _keep_asking(self, within: float) -> None:
        """Let the queue be asked within so many seconds. From any thread."""
        timer, loop = self._timer, self._loop
        if loop is not None and (timer is None or timer.when() > loop.time() + within):
            loop.call_soon_threadsafe(self._ask_within, within)

    def _ask_within(self, pause: float) -> None:
        self._pause = pause
        if self._asking is None:
            self._ask_later()
        elif not pause:
            self._again = True  # the answer on its way may be too old

    def _ask_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._start_asking)

    def _start_asking(self) -> None:
        self._timer = None
        if self._waiting:
            self._asking = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        """Ask until there is no more news, and again after a pause."""
        try:
            while self._waiting:
                self._again = False
                ids, since = self._some(), self.now()
                started = time.monotonic()
                tasks = await self._look(ids)
                took = time.monotonic() - started
                news = await self._tell(ids, tasks, since)
                if news < NEWS * len(ids) and not self._again:
                    pause = min(max(self._pause, POLL_FIRST) * 1.5, POLL_LAST)
                    self._pause = max(pause, took / POLL_SHARE)
                    break
        except StoreError as error:
            self._pause = TROUBLE
            log.warning("it is asked again in %g s how tasks stand: %s", TROUBLE, error)
        finally:
            self._asking = None
        if self._waiting:
            self._ask_later()

    def _some(self) -> list[str]:
        """Choose whom to ask about: those who have waited longest, and all others in turn."""
        half = AT_ONCE // 2
        with self._lock:
            begin = half + self._turn
            turn = list(islice(self._waiting, begin, begin + half))
            self._turn = self._turn + half if len(turn) == half else 0
            return [*islice(self._waiting, half), *turn]

    async def _look(self, ids: Sequence[str]) -> list[Task | None]:
        """Ask the queue how these tasks stand."""
        tasks = await self._stores.task_queue.get(ids)
        now = time.time()
        overdue = [
            task.id
            for task in tasks
            if task is not None
            and task.state in (State.QUEUED, State.BLOCKED)
            and task.expires_at is not None
            and task.expires_at <= now
        ]
        if overdue:
            # No worker may ever come to say so.
            await self._stores.task_queue.transition(overdue, State.EXPIRED)
            tasks = await self._stores.task_queue.get(ids)
        return tasks

    async def _tell(self, ids: Sequence[str], tasks: Sequence[Task | None], since: int) -> int:
        """Publish those that ended. How many that were."""
        for task_id, task in zip(ids, tasks, strict=True):
            if task is None:
                self._unknown(task_id, since)
        ended = [task for task in tasks if task is not None and task.state.final]
        if ended:
            stored = await self._stores.result_storage.get([task.claim for task in ended])
            self.publish(
                [
                    result if result is not None else result_of(task)
                    for task, result in zip(ended, stored, strict=True)
                ],
                since,
            )
        return len(ended)

    def _unknown(self, task_id: str, since: int) -> None:
        error = UnknownTask(f"no task {task_id!r} is known: it was purged, or never added")
        with self._lock:
            for waiting in self._waited_by(since, task_id):
                waiting.fail(error)
