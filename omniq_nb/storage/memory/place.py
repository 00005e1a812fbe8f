"""A space in memory that holds all four components."""

from omniq_nb.storage.journal.memory_log import MemoryLog
from omniq_nb.storage.journal.queue import JournalTaskQueue
from omniq_nb.storage.journal.schedules import JournalScheduleStore
from omniq_nb.storage.memory.events import MemoryEventStore
from omniq_nb.storage.memory.results import MemoryResultStore


class MemoryPlace:
    """One space in memory. It lives as long as this object, whatever is closed and reopened.

    Each method gives the same store each time.
    """

    def __init__(self) -> None:
        self._task_queue = JournalTaskQueue(MemoryLog())
        self._schedule_storage = JournalScheduleStore(MemoryLog())
        self._result_storage = MemoryResultStore()
        self._event_storage = MemoryEventStore()

    def task_queue(self) -> JournalTaskQueue:
        """Give the queue."""
        return self._task_queue

    def result_storage(self) -> MemoryResultStore:
        """Give the results."""
        return self._result_storage

    def event_storage(self) -> MemoryEventStore:
        """Give the events."""
        return self._event_storage

    def schedule_storage(self) -> JournalScheduleStore:
        """Give the schedules."""
        return self._schedule_storage

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        return {
            "durability": "gone with this process",
            "sharing": "this process only",
            "exclusion": "one task has one worker: claims take turns in memory",
        }
