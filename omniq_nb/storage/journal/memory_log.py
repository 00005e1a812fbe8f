"""The log of a store that lives in one process's memory: it keeps nothing.

The replica's state is the only copy, so there is nobody to read an entry. What remains of the
journal is its fold and its combining of concurrent callers.
"""

from collections.abc import Sequence

from omniq_nb.storage.journal.log import Entry, Log


class MemoryLog(Log):
    """Accepts every entry and forgets it."""

    immediate = True
    slow = False
    poll = None

    async def open(self) -> None:
        """Nothing to create."""

    async def close(self) -> None:
        """Nothing to release: the state lives as long as its store object."""

    async def size(self, number: int) -> int | None:
        """Nobody else writes."""
        return None

    async def read(self, number: int) -> Sequence[Entry]:
        """Nobody else writes."""
        return ()

    async def append(self, number: int, entry: Entry) -> bool:
        """Win always."""
        return True
