"""What all parts of one client share: stores, codec, the way to events and to outcomes."""

import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from omniq_nb.codec import Bundles, Codec
from omniq_nb.config import COMPONENTS, OmniQConfig
from omniq_nb.core.bundles import BundleStore
from omniq_nb.core.events import EventLog, event
from omniq_nb.core.options import TaskOptions
from omniq_nb.core.outcomes import Outcomes, result_of
from omniq_nb.core.outputs import Outputs
from omniq_nb.core.provenance import environment, origin, working_directory
from omniq_nb.core.submission import Function, Submission, plain_function
from omniq_nb.explore import Explorer
from omniq_nb.liveness import seen_now, unserved
from omniq_nb.machine import REQUEUEABLE
from omniq_nb.models.event import EventType
from omniq_nb.models.task import State, Task
from omniq_nb.storage.base import Store, Stores
from omniq_nb.storage.bell import Bell

_REPORTED = {
    State.FAILED: EventType.FAILED,
    State.CANCELLED: EventType.CANCELLED,
    State.EXPIRED: EventType.EXPIRED,
}


class LocalWorker(Protocol):
    """A worker of this process, as far as the engine needs to know it."""

    def cancel(self, ids: Sequence[str]) -> None:
        """End these tasks here, if they are here."""


class Engine:
    """The inside of a client. Everything public is in `omniq_nb.core.client`.

    Parameters
    ----------
    config : OmniQConfig
        The configuration as the user gave it.
    stores : Stores
        Not open yet.
    codec : Codec
        With the project's key.
    defaults : TaskOptions
        What tasks get unless the user says otherwise.
    result_format : str
        How plain values are packed: the result storage's `serialization_format`.

    Attributes
    ----------
    immediate : bool
        Whether all stores may be used without an event loop, from any thread.
    """

    def __init__(
        self,
        config: OmniQConfig,
        stores: Stores,
        codec: Codec,
        defaults: TaskOptions,
        result_format: str = "msgpack",
    ) -> None:
        self.config = config
        # Both as they were when the stores were made, whatever directory the kernel changes to.
        self.folder = working_directory()
        self.identity = identity_of(config)
        self.stores = stores
        self.immediate = all(store.immediate for store in self._each())
        self.codec = codec
        self.defaults = defaults
        self.result_format = result_format
        self.submission = Submission(codec)
        self.bundles = BundleStore(stores.task_queue)
        self.events = EventLog(stores.event_storage)
        self.outcomes = Outcomes(stores)
        self.explorer = Explorer(stores)
        self.outputs = Outputs(stores, self.explorer, self.events, self.outcomes)
        self.workers: list[LocalWorker] = []
        self.schedules_changed = Bell()  # rung by this client's own changes
        self._told: set[str] = set()

    async def open(self) -> None:
        """Open the stores, each once, and bind to the running loop."""
        for store in self._each():
            await store.open()
        self.events.open()
        self.outcomes.open()
        self.bundles.open()

    async def close(self) -> None:
        """Write what is pending and close the stores."""
        self.bundles.close()
        await self.outputs.close()
        await self.outcomes.close()
        await self.events.flush()
        for store in reversed(self._each()):
            await store.close()

    async def enqueue(
        self,
        tasks: list[Task],
        revive: bool = False,
        function: Function | None = None,
        bundles: Bundles | None = None,
    ) -> list[bool]:
        """Add tasks and say so, and where the calls of `function` were submitted.

        False: one is known already, and was left alone.
        """
        if bundles is not None:
            await self.bundles.put(bundles)
        added = await self.stores.task_queue.add(tasks, revive)
        come_from = None
        if function is not None:  # only now: a worker may have begun meanwhile
            self.tell_environment()
            come_from = origin(plain_function(function))
        # The ids are not made of tokens: who submits does not know that of a revived task.
        self.events.emit(
            event(
                EventType.ENQUEUED,
                task.created_at,
                task,
                id=f"{task.id}:{int(task.created_at * 1e6)}:enqueued",
                data=come_from,
            )
            for task, new in zip(tasks, added, strict=True)
            if new
        )
        return added

    def tell_environment(self) -> str:
        """See to it that the history says what this process runs in. The environment's hash."""
        described = environment()
        if described.hash not in self._told:
            self._told.add(described.hash)
            self.events.emit([described.event()])
        return described.hash

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Cancel tasks, queued or running. False: unknown, or over already."""
        since = self.outcomes.now()
        before = await self.stores.task_queue.get(ids)
        await self.stores.task_queue.transition(ids, State.CANCELLED)
        after = await self.stores.task_queue.get(ids)
        cancelled = [
            new
            for old, new in zip(before, after, strict=True)
            if new is not None
            and new.state is State.CANCELLED
            and (old is None or old.state is not State.CANCELLED)
        ]
        if cancelled:
            for worker in self.workers:
                worker.cancel([task.id for task in cancelled])
            await self.report(cancelled, since)
        ended = {task.id for task in cancelled}
        return [task_id in ended for task_id in ids]

    async def requeue(self, ids: Sequence[str]) -> list[bool]:
        """Queue failed, cancelled or expired tasks again. False: unknown, or in another state."""
        before = await self.stores.task_queue.get(ids)
        states = await self.stores.task_queue.transition(ids, State.QUEUED)
        now = time.time()
        queued = []
        for task, state in zip(before, states, strict=True):
            requeued = (
                task is not None and task.state in REQUEUEABLE and not (state or task.state).final
            )
            queued.append(requeued)
            if requeued and task is not None:
                self.events.emit([event(EventType.REQUEUED, now, task)])
        return queued

    async def report(self, tasks: list[Task], since: int) -> None:
        """Tell the world of tasks that ended without an attempt to say so.

        They were cancelled, they expired, or they were lost too often. Their results have the
        newest token, and so hide what a zombie may still store.
        """
        results = []
        for task in tasks:
            result = result_of(task)
            if task.result_ttl is not None and task.finished_at is not None:
                result.expires_at = task.finished_at + task.result_ttl
            results.append(result)
        await self.stores.result_storage.put(results)
        self.events.emit(
            event(_REPORTED[task.state], task.finished_at or 0.0, task, message=task.error)
            for task in tasks
        )
        self.outcomes.publish(results, since)

    async def unserved(self, queues: Iterable[str]) -> tuple[str, ...]:
        """Those of the queues that no worker serves."""
        wanted = set(queues)
        if not wanted:
            return ()
        return unserved(wanted, seen_now(await self.stores.task_queue.workers()))

    async def purge(self, before: float) -> dict[str, int]:
        """Forget what is older, in all stores but the schedules."""
        await self.events.flush()
        return {
            "tasks": await self.stores.task_queue.purge(before),
            "results": await self.stores.result_storage.purge(time.time(), before),
            "events": await self.stores.event_storage.purge(before),
        }

    def _each(self) -> list[Store]:
        return list(msgspec.structs.astuple(self.stores))


def identity_of(config: OmniQConfig) -> str:
    """What all clients have in common whose tasks are the same ones. It tells no secret."""
    content = blake2b(config.settings.project_name.encode(), digest_size=16)
    for component in COMPONENTS:
        content.update(repr(config.resolve(component)).encode())  # shows no secret
    return content.hexdigest()
