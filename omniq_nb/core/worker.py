"""A worker: claims tasks, has an executor run them, settles what comes out.

Four coroutines share one executor: `_claim_some` keeps it fed, `_finish_some` stores results,
settles claims and reports, `_beat_once` extends leases, tells that the worker lives, gives back
what it holds for too long and sees to orphans, `_look_once` passes on what tasks print. Whatever
dies in between, a task is either settled or due again when its lease is over.

Not here: how a call is run (`omniq_nb.core.executors`), and starting, scaling and stopping by
hand (`omniq_nb.core.workers`).
"""

import asyncio
import logging
import math
import os
import platform
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain

import msgspec

from omniq_nb.core.engine import Engine
from omniq_nb.core.events import event
from omniq_nb.core.executors import Executor, Outcome, Progress
from omniq_nb.core.orphans import Orphans
from omniq_nb.core.outputs import LOOK_EVERY
from omniq_nb.core.retrying import next_attempt
from omniq_nb.errors import OmniQError, StoreError
from omniq_nb.liveness import this_process
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo
from omniq_nb.storage.base import TaskQueue

LEASE = 30.0
"""Seconds for which a claim holds without news of its worker."""

BEAT = 2.0
"""Seconds between heartbeats; each extends the leases and notices what was cancelled."""

PREFETCH_SECONDS = 0.1
"""Short tasks are claimed ahead: as many as this much time is worth."""

PREFETCH_LIMIT = 2048
"""The most that a worker holds, unless it runs more at the same time."""

GATHERING, GATHERING_LOOK = 0.05, 0.005
"""Seconds for which outcomes gather while there is much more to run, and between two looks at how
much: to store many together costs little more than to store one."""

HOARDING = 1.0
"""Seconds that a task may run, or that what was claimed ahead may last, before the worker gives
back what others could run meanwhile."""

IDLE = 20.0
"""The longest wait for new tasks before asking again, seconds. A store wakes who waits: this is
for a wake-up that was lost on its way."""

PAUSE = 0.02
"""Seconds between two looks at whether a worker that stops is done."""

PURGE_EVERY = 60.0
"""Seconds between two purges of expired results."""

log = logging.getLogger("omniq_nb.worker")

_ENDED = {
    State.SUCCEEDED: EventType.SUCCEEDED,
    State.FAILED: EventType.FAILED,
    State.CANCELLED: EventType.CANCELLED,
    State.EXPIRED: EventType.EXPIRED,
}


class Worker:
    """One claim loop over one executor, on the engine's event loop.

    Parameters
    ----------
    engine : Engine
        The stores and all that is shared.
    make_executor : callable
        Makes the executor, given the function by which it tells that something finished.
    queues : sequence of str
        Asked in this order.
    concurrency : int
        Tasks run at the same time.
    kind : str, optional
        What it is called in tables; the executor's kind unless given.
    log : str
        The file that its process writes to, if there is one.
    max_tasks : int, optional
        It claims no more than these in its life.
    """

    def __init__(
        self,
        engine: Engine,
        make_executor: Callable[[int, Callable[[], None]], Executor],
        queues: Sequence[str],
        concurrency: int,
        *,
        kind: str | None = None,
        log: str = "",
        max_tasks: int | None = None,
    ) -> None:
        self._engine = engine
        self._stores = engine.stores
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._room = asyncio.Event()
        self._executor = make_executor(concurrency, self._notify)
        self._held: dict[str, Task] = {}
        self._announced: set[Claim] = set()
        self._seconds_per_task = PREFETCH_SECONDS
        self._claimed_at = 0.0
        # Held while a claim or an outcome is in nobody's hands but ours: stop waits for it.
        self._claiming = asyncio.Lock()
        self._finishing = asyncio.Lock()
        self._random = random.Random()
        self._coroutines: list[asyncio.Task[None]] = []
        self._purge_at = 0.0
        self._orphans = Orphans(self._stores.task_queue, LEASE + BEAT)
        self._hurried = False
        self._claims_left: float = math.inf if max_tasks is None else max_tasks
        self.info = WorkerInfo(
            id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            kind=self._executor.kind if kind is None else kind,
            queues=tuple(queues),
            concurrency=concurrency,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=time.time(),
            log=log,
            python=platform.python_version(),
            environment=engine.tell_environment(),
            process=this_process(),
        )

    @property
    def busy(self) -> bool:
        """Whether it holds tasks."""
        return bool(self._held)

    @property
    def spent(self) -> bool:
        """Whether it has run all that it may run in its life."""
        return self._claims_left <= 0 and not self._held

    # ---------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to claim."""
        self._executor.start()
        await self._beat()
        self._emit_own(EventType.WORKER_STARTED)
        self._coroutines = [
            asyncio.create_task(self._forever(self._claim_some), name="omniq claims"),
            asyncio.create_task(self._forever(self._finish_some), name="omniq finishes"),
            asyncio.create_task(self._forever(self._beat_once), name="omniq beats"),
            asyncio.create_task(self._forever(self._look_once), name="omniq looks"),
        ]

    async def stop(self, *, drain: bool, timeout: float | None) -> None:
        """Stop claiming; finish what runs (with `drain`: until its queues are empty).

        After `timeout` seconds what still runs is given back to the queue, and is ended where
        the executor can end it.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if drain:
            while not (self._overdue(deadline) or await self._idle()):
                await asyncio.sleep(PAUSE)
        self.info.state = "draining"
        claims, finishes, beats, looks = self._coroutines
        async with self._claiming:
            claims.cancel()
        await self._give_back(self._executor.withdraw())
        while self._held and not self._overdue(deadline):
            await asyncio.sleep(PAUSE)
        abandoned = await asyncio.to_thread(self._executor.stop, 0.0)
        async with self._finishing:
            finishes.cancel()
            await self._finish(*self._executor.take())
        await self._give_back(abandoned)
        beats.cancel()
        looks.cancel()
        await asyncio.wait(self._coroutines)
        self.info.state = "stopped"
        self._emit_own(EventType.WORKER_STOPPED)
        await self._beat()

    def hurry(self) -> None:
        """Let a `stop` that waits for running tasks wait no more."""
        self._hurried = True

    def _overdue(self, deadline: float) -> bool:
        return self._hurried or time.monotonic() >= deadline

    def resize(self, concurrency: int) -> None:
        """Run this many tasks at the same time from now on."""
        self.info.concurrency = concurrency
        self._executor.resize(concurrency)
        self._room.set()

    def cancel(self, ids: Sequence[str]) -> None:
        """These tasks were cancelled in the queue: end them here, if they are here."""
        for task_id in ids:
            if task_id in self._held:
                self._executor.cancel(task_id, "cancelled")

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step; when a store is in trouble, wait and go on."""
        pause = 0.1
        while True:
            try:
                await step()
                pause = 0.1
            except StoreError as error:
                log.warning("worker %s waits %.1f s: %s", self.info.id, pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)
            except OmniQError:
                raise
            except Exception:
                # A bug of ours or of a driver must not silently end the worker.
                log.exception("worker %s goes on after an unexpected error", self.info.id)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    async def _idle(self) -> bool:
        """Whether nothing is held and nothing is due soon in its queues."""
        if self._held:
            return False
        return await nothing_to_do(self._stores.task_queue, self.info.queues)

    # ---------------------------------------------------------------- claiming

    async def _claim_some(self) -> None:
        most = self._most()
        room = int(min(most - len(self._held), self._claims_left))
        # Half-full is soon enough, as long as no slot is free: claims are cheaper in batches.
        busy = len(self._held) >= self.info.concurrency and self._executor.backlog()
        if room <= 0 or (room < most / 2 and busy):
            self._room.clear()
            await self._room.wait()
            return
        async with self._claiming:
            since = self._engine.outcomes.now()
            tasks = await self._stores.task_queue.claim(self.info.queues, room, LEASE, self.info.id)
            self._claimed_at = time.monotonic()
            running = []
            for task in tasks:
                if task.state is State.RUNNING:
                    running.append(task)
                    self._held[task.id] = task
            self._claims_left -= len(running)
            self._executor.submit(running)
            if len(running) < len(tasks):
                await self._engine.report([task for task in tasks if task.state.final], since)
        if len(tasks) < room:  # no more is due
            await self._stores.task_queue.wait(self.info.queues, IDLE)

    def _most(self) -> int:
        """How many tasks to hold: what runs, and short ones ahead."""
        slots = self.info.concurrency
        worth = max(PREFETCH_SECONDS, self._stores.task_queue.rest / 5)
        ahead = slots * max(1.0, worth / self._seconds_per_task)
        return int(min(ahead, max(PREFETCH_LIMIT, slots)))

    # ---------------------------------------------------------------- finishing

    def _notify(self) -> None:
        self._loop.call_soon_threadsafe(self._finished.set)

    async def _finish_some(self) -> None:
        await self._finished.wait()
        await self._gather()
        async with self._finishing:
            self._finished.clear()
            await self._finish(*self._executor.take())
            if self._held:
                await self._stop_hoarding()

    async def _gather(self) -> None:
        """Let outcomes gather as long as more than half of what was claimed is not started.

        Where each request costs money, as long as anything is not started.
        """
        share = 0.0 if self._stores.task_queue.rest else 0.5
        until = time.monotonic() + GATHERING
        while self._executor.backlog() > share * len(self._held) and time.monotonic() < until:
            await asyncio.sleep(GATHERING_LOOK)

    async def _finish(self, outcomes: list[Outcome], progress: list[Progress]) -> None:
        """Put results, settle, then tell: in that order."""
        self._engine.events.emit(self._progress_event(report) for report in progress)
        if not outcomes:
            return
        now = time.time()
        settles: list[Settle] = []
        results: list[Result | None] = []
        for outcome in outcomes:
            settle = self._settle(outcome, now)
            settles.append(settle)
            results.append(self._result(outcome) if settle.to is not State.QUEUED else None)
        kept = [result for result in results if result is not None]
        # Who hears that a task ended may ask for its history at once.
        with self._engine.events.coming():
            settled, since = await self._settle_surely(settles, kept)
            self._engine.events.emit(
                chain.from_iterable(
                    self._events(outcome, settle)
                    for outcome, settle, applied in zip(outcomes, settles, settled, strict=True)
                    if applied
                )
            )
        self._learn(outcomes)
        for outcome in outcomes:
            if self._held.get(outcome.task.id) is outcome.task:
                del self._held[outcome.task.id]
        self._room.set()
        self._engine.outcomes.publish(
            [
                result
                for result, applied in zip(results, settled, strict=True)
                if applied and result is not None
            ],
            since,
        )

    async def _settle_surely(
        self, settles: list[Settle], results: list[Result]
    ) -> tuple[list[bool], int]:
        """Commit, through passing trouble of a store. The leases are extended meanwhile.

        Also tells the moment before the queue was first told of these ends.
        """
        queue, pause = self._stores.task_queue, 0.1
        together = queue.commits_with(self._stores.result_storage)
        since: int | None = None
        while True:
            try:
                if results and not together:
                    await self._stores.result_storage.put(results)
                since = self._engine.outcomes.now() if since is None else since
                return await queue.settle(settles, results if together else ()), since
            except StoreError as error:
                log.warning(
                    "worker %s could not store %d outcomes, tries again in %.1f s: %s",
                    self.info.id, len(settles), pause, error,
                )  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    def _settle(self, outcome: Outcome, now: float) -> Settle:
        task = outcome.task
        settle = Settle(
            id=task.id,
            token=task.token,
            to=outcome.to,
            started_at=outcome.started_at,
            finished_at=outcome.finished_at,
            error=outcome.error,
        )
        if outcome.released:
            settle.to, settle.released = State.QUEUED, True
        elif outcome.to is State.FAILED:
            retry_at = next_attempt(task, outcome.error_types, now, self._random)
            if retry_at is not None:
                settle.to, settle.available_at = State.QUEUED, retry_at
        return settle

    def _result(self, outcome: Outcome) -> Result:
        task = outcome.task
        return Result(
            task_id=task.id,
            token=task.token,
            name=task.name,
            queue=task.queue,
            batch=task.batch,
            position=task.position,
            arguments=task.arguments,
            attempt=task.attempt,
            worker=self.info.id,
            state=outcome.to,
            created_at=task.created_at,
            started_at=outcome.started_at,
            finished_at=outcome.finished_at,
            payload=outcome.payload,
            value=outcome.value,
            value_type=outcome.value_type,
            error=outcome.error,
            traceback=outcome.traceback,
            output=outcome.output,
            expires_at=(None if task.result_ttl is None else outcome.finished_at + task.result_ttl),
        )

    def _events(self, outcome: Outcome, settle: Settle) -> list[Event]:
        task, worker = outcome.task, self.info.id
        if outcome.released:
            return [event(EventType.RELEASED, time.time(), task, worker=worker)]
        events = []
        if self._announced and task.claim in self._announced:
            self._announced.discard(task.claim)
        else:
            events.append(event(EventType.STARTED, outcome.started_at, task, worker=worker))
        retried = settle.to is State.QUEUED
        events.append(
            event(
                EventType.RETRIED if retried else _ENDED[outcome.to],
                outcome.finished_at,
                task,
                worker=worker,
                started_at=outcome.started_at,
                message=outcome.error,
                data=self._retry_data(outcome, settle) if retried else None,
            )
        )
        return events

    @staticmethod
    def _retry_data(outcome: Outcome, settle: Settle) -> str:
        """What would else be gone: a retried attempt has no result."""
        data = {
            "retry_at": settle.available_at,
            "traceback": outcome.traceback,
            "output": outcome.output,
        }
        return msgspec.json.encode(data).decode()

    def _progress_event(self, report: Progress) -> Event:
        task = report.task
        return event(
            EventType.PROGRESS,
            time.time(),
            task,
            # There may be many.
            id=f"{task.id}:{task.token}:{EventType.PROGRESS}:{secrets.token_hex(6)}",
            worker=self.info.id,
            message=report.message,
            data=msgspec.json.encode({"done": report.done, "total": report.total}).decode(),
        )

    def _learn(self, outcomes: list[Outcome]) -> None:
        """How long tasks take lately: it decides how many are claimed ahead."""
        succeeded = 0
        for outcome in outcomes:
            seconds = max(0.0, outcome.finished_at - outcome.started_at)
            # A long task counts at once, a short one slowly: hoarding is worse than a pause.
            weight = 1.0 if seconds > self._seconds_per_task else 0.2
            self._seconds_per_task += weight * (seconds - self._seconds_per_task)
            succeeded += outcome.to is State.SUCCEEDED
        self._seconds_per_task = max(self._seconds_per_task, 1e-6)
        self.info.succeeded += succeeded
        self.info.failed += len(outcomes) - succeeded

    # ---------------------------------------------------------------- looking

    async def _look_once(self) -> None:
        await asyncio.sleep(LOOK_EVERY)
        if self._held:
            self._engine.outputs.publish(self.info, self._executor.printed())

    # ---------------------------------------------------------------- beating

    async def _beat_once(self) -> None:
        await asyncio.sleep(BEAT if self._held else max(BEAT, self._stores.task_queue.rest))
        await self._extend()
        workers = await self._beat()
        self._announce()
        await self._stop_hoarding()
        await self._orphans.look(self.info, workers)
        if time.monotonic() > self._purge_at:
            self._purge_at = time.monotonic() + PURGE_EVERY
            await self._stores.result_storage.purge(time.time())

    async def _beat(self) -> list[WorkerInfo]:
        self.info.heartbeat_at = time.time()
        self.info.running = len(self._executor.running())
        return await self._stores.task_queue.workers(self.info)

    async def _extend(self) -> None:
        """Keep what is held; end what was cancelled or lost."""
        held = list(self._held.values())
        if not held:
            return
        kept = await self._stores.task_queue.extend([task.claim for task in held], LEASE)
        for task, live in zip(held, kept, strict=True):
            if not live and self._held.get(task.id) is task:
                self._executor.cancel(task.id, "lost")

    def _announce(self) -> None:
        """Say of long tasks that they started; of short ones their end says both."""
        started = []
        for task_id, started_at in self._executor.running().items():
            task = self._held.get(task_id)
            if task is not None and task.claim not in self._announced:
                self._announced.add(task.claim)
                started.append(event(EventType.STARTED, started_at, task, worker=self.info.id))
        self._engine.events.emit(started)

    async def _stop_hoarding(self) -> None:
        """Give back what was claimed ahead if it takes longer than was thought."""
        now, running = time.time(), self._executor.running()
        if running and now - min(running.values()) > HOARDING:
            self._seconds_per_task = max(self._seconds_per_task, HOARDING)
            await self._give_back(self._executor.withdraw())
        elif len(self._held) > self._most() and time.monotonic() - self._claimed_at > HOARDING:
            tasks = self._executor.withdraw()
            kept = max(0, self._most() - (len(self._held) - len(tasks)))
            self._executor.submit(tasks[:kept])
            await self._give_back(tasks[kept:])

    async def _give_back(self, tasks: Sequence[Task]) -> None:
        """Release tasks that were not run, so that another worker may have them at once."""
        if not tasks:
            return
        self._claims_left += len(tasks)
        for task in tasks:
            self._held.pop(task.id, None)
        self._room.set()
        await self._stores.task_queue.settle(
            [Settle(id=t.id, token=t.token, to=State.QUEUED, released=True) for t in tasks]
        )
        now = time.time()
        self._engine.events.emit(
            event(EventType.RELEASED, now, task, worker=self.info.id) for task in tasks
        )

    def _emit_own(self, type: EventType) -> None:
        environment = {"environment": self.info.environment}
        self._engine.events.emit(
            [
                Event(
                    id=f"{self.info.id}:{type}",
                    type=type,
                    at=time.time(),
                    worker=self.info.id,
                    data=msgspec.json.encode(environment).decode(),
                )
            ]
        )


async def nothing_to_do(queue: TaskQueue, names: Iterable[str]) -> bool:
    """Whether none of these queues has a task that waits or runs."""
    counts = await queue.counts()
    return not any(
        counts.get((name, state), 0) for name in names for state in (State.QUEUED, State.RUNNING)
    )
