"""What the four stores have in common: being open."""

from omniq_nb.errors import StoreClosed
from omniq_nb.storage.base import Store
from omniq_nb.storage.sql.database import Database


class SqlStore(Store):
    """A component in a database.

    Parameters
    ----------
    database : Database
        Where it lives; other components may share it.
    """

    def __init__(self, database: Database) -> None:
        self.immediate = database.immediate  # type: ignore[misc]
        self._shared = database
        self._opened = False

    async def open(self) -> None:
        """Connect; see `Store`."""
        await self._shared.open(self)
        self._opened = True

    async def close(self) -> None:
        """Disconnect, if no other component uses the database; see `Store`."""
        self._opened = False
        await self._shared.close(self)

    @property
    def _database(self) -> Database:
        if not self._opened:
            raise StoreClosed(
                f"The {type(self).__name__} is not open: it was closed, or open() was not called."
            )
        return self._shared
