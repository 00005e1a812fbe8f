"""What the four stores have in common: being open."""

from typing import ClassVar

from omniq_nb.errors import StoreClosed
from omniq_nb.storage.base import Store
from omniq_nb.storage.redis.database import RedisDatabase


class RedisStore(Store):
    """A component on a Redis server.

    Parameters
    ----------
    database : RedisDatabase
        Where it lives; other components may share it.
    """

    immediate: ClassVar[bool] = False

    def __init__(self, database: RedisDatabase) -> None:
        self._shared = database
        self._opened = False

    async def open(self) -> None:
        """Connect; see `Store`."""
        await self._shared.open(self)
        self._opened = True

    async def close(self) -> None:
        """Disconnect, if no other component uses the connections; see `Store`."""
        self._opened = False
        await self._shared.close(self)

    @property
    def _database(self) -> RedisDatabase:
        if not self._opened:
            raise StoreClosed(
                f"The {type(self).__name__} is not open: it was closed, or open() was not called."
            )
        return self._shared
