"""What all places have whose queue and schedules are logs.

Not here: what the logs are, and the stores of results and events beside them (`file`, `memory`,
`nats`, `buckets`).
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from omniq_nb.storage.base import EventStore, ResultStore
from omniq_nb.storage.journal.log import Log
from omniq_nb.storage.journal.queue import JournalTaskQueue
from omniq_nb.storage.journal.schedules import JournalScheduleStore

R = TypeVar("R", bound=ResultStore)
E = TypeVar("E", bound=EventStore)


class JournalPlace(Generic[R, E]):
    """Four stores of one place.

    Each method gives the same store each time, since the log of a queue has one reader in a
    process.

    Parameters
    ----------
    make_log : callable
        Makes the log of that name: ``"queue"``, ``"schedules"``.
    results : ResultStore
        The results.
    events : EventStore
        The events.
    """

    def __init__(self, make_log: Callable[[str], Log], results: R, events: E) -> None:
        self._task_queue = JournalTaskQueue(make_log("queue"))
        self._schedule_storage = JournalScheduleStore(make_log("schedules"))
        self._result_storage = results
        self._event_storage = events

    def task_queue(self) -> JournalTaskQueue:
        """Give the queue."""
        return self._task_queue

    def result_storage(self) -> R:
        """Give the results."""
        return self._result_storage

    def event_storage(self) -> E:
        """Give the events."""
        return self._event_storage

    def schedule_storage(self) -> JournalScheduleStore:
        """Give the schedules."""
        return self._schedule_storage
