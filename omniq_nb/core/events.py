"""The engine's way to the event store: gathered in memory, written soon, in order.

An event is lost if the process dies within `FLUSH_AFTER` seconds of it (a quarter of a second in a
bucket, where each request costs money): tasks and results are the truth, events are their history.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from omniq_nb.errors import StoreError
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.task import Task
from omniq_nb.storage.base import EventStore

FLUSH_AFTER = 0.05
"""Seconds that an event may wait for company."""

FLUSH_LIMIT = 10_000
"""Events written at once."""

KEPT = 200_000
"""Events kept in memory while the store does not take them; then the oldest are dropped."""

COMING = 5.0
"""Seconds, at most, for which a reader waits for events that are about to come."""

log = logging.getLogger("omniq_nb.events")


def event(
    type: EventType,
    at: float,
    task: Task,
    id: str | None = None,
    worker: str | None = None,
    started_at: float | None = None,
    message: str | None = None,
    data: str | None = None,
) -> Event:
    """An event of a task. Its id makes a repeated write harmless."""
    return Event(
        id=id or f"{task.id}:{task.token}:{type}",
        type=type,
        at=at,
        task_id=task.id,
        name=task.name,
        queue=task.queue,
        batch=task.batch,
        attempt=task.attempt,
        worker=worker,
        started_at=started_at,
        message=message,
        data=data,
    )


class EventLog:
    """Gathers events from any thread and appends them on the engine's loop.

    Parameters
    ----------
    store : EventStore
        Where they go.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._pending: deque[Event] = deque(maxlen=KEPT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._lock = threading.Lock()
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._coming: set[asyncio.Future[None]] = set()

    def open(self) -> None:
        """Start flushing on the running loop."""
        self._loop = asyncio.get_running_loop()

    def emit(self, events: Iterable[Event]) -> None:
        """Write these soon. Safe from any thread; never blocks."""
        self._pending.extend(events)
        with self._lock:
            if self._scheduled or not self._pending or self._loop is None:
                return
            self._scheduled = True
        self._loop.call_soon_threadsafe(self._schedule)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """In here stores are told something, and then its events are emitted. On the loop."""
        emitted = asyncio.get_running_loop().create_future()
        self._coming.add(emitted)
        try:
            yield
        finally:
            self._coming.discard(emitted)
            emitted.set_result(None)

    async def catch_up(self) -> None:
        """Write the events of all that can be seen to have happened, for whoever reads them."""
        if self._coming:
            await asyncio.wait(self._coming, timeout=COMING)
        await self.flush()

    async def flush(self) -> None:
        """Write all that was emitted before this call.

        Raises
        ------
        StoreError
            The store refused; the events are kept and tried again with the next flush.
        """
        async with self._flushing:
            while self._pending:
                taken = [
                    self._pending.popleft() for _ in range(min(len(self._pending), FLUSH_LIMIT))
                ]
                try:
                    await self._store.append(taken)
                except BaseException:
                    self._pending.extendleft(reversed(taken))
                    raise

    def _schedule(self) -> None:
        assert self._loop is not None
        self._loop.call_later(max(FLUSH_AFTER, self._store.rest / 20), self._start_flush)

    def _start_flush(self) -> None:
        self._scheduled = False
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except StoreError as error:
            log.warning("events are kept in memory: the event store refused them: %s", error)
