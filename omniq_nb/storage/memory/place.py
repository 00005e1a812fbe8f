"""A space in memory that holds all four components."""

from omniq_nb.storage.journal.memory_log import MemoryLog
from omniq_nb.storage.journal.place import JournalPlace
from omniq_nb.storage.memory.events import MemoryEventStore
from omniq_nb.storage.memory.results import MemoryResultStore


class MemoryPlace(JournalPlace[MemoryResultStore, MemoryEventStore]):
    """One space in memory. It lives as long as this object, whatever is closed and reopened."""

    def __init__(self) -> None:
        super().__init__(lambda _: MemoryLog(), MemoryResultStore(), MemoryEventStore())

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        return {
            "durability": "gone with this process",
            "sharing": "this process only",
            "exclusion": "one task has one worker: claims take turns in memory",
        }
