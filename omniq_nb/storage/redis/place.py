"""The keys with one prefix on a Redis server, and the four stores in them."""

from collections.abc import Mapping

from omniq_nb.config.options import RedisOptions
from omniq_nb.storage.redis.database import RedisDatabase
from omniq_nb.storage.redis.events import RedisEventStore
from omniq_nb.storage.redis.queue import RedisTaskQueue
from omniq_nb.storage.redis.results import RedisResultStore
from omniq_nb.storage.redis.schedules import RedisScheduleStore

_SYNC = {
    "always": "an acknowledged write survives the death of the server and of its machine "
    "(appendfsync always)",
    "everysec": "the last second or two of acknowledged writes may be lost when the server or its "
    "machine dies (appendfsync everysec)",
    "no": "the last half minute of acknowledged writes may be lost when the server's machine dies "
    "(appendfsync no)",
}
"""What each way to sync the log of writes (AOF) promises."""


class RedisPlace:
    """A Redis server, and the four stores on it.

    Parameters
    ----------
    location : None
        The place is in the options.
    options : RedisOptions
        Where it is and how to use it.
    """

    def __init__(self, location: None, options: RedisOptions) -> None:
        self._database = RedisDatabase(options)

    def task_queue(self) -> RedisTaskQueue:
        """Give the tasks."""
        return RedisTaskQueue(self._database)

    def result_storage(self) -> RedisResultStore:
        """Give the results."""
        return RedisResultStore(self._database)

    def event_storage(self) -> RedisEventStore:
        """Give the events."""
        return RedisEventStore(self._database)

    def schedule_storage(self) -> RedisScheduleStore:
        """Give the schedules."""
        return RedisScheduleStore(self._database)

    async def promises(self) -> Mapping[str, str]:
        """Say what the open server promises, in words, by topic.

        Returns
        -------
        mapping
            ``durability`` (what an acknowledged write survives), ``sharing`` (who else may use
            the place) and ``exclusion`` (what keeps two workers from one task).
        """
        return {
            "durability": await self._durability(),
            "sharing": "any number of processes and machines that reach the server",
            "exclusion": "each claim is one script on the server, and leases go by its clock",
        }

    async def _durability(self) -> str:
        about = await self._about("persistence") | await self._about("memory")
        if about.get("aof_enabled") == "0":
            said = (
                "none if the server dies: it runs without AOF (appendonly no), and loses what was "
                "acknowledged since its last snapshot"
            )
        else:
            _, sync = await self._database.command("CONFIG", "GET", "appendfsync")
            said = _SYNC[sync.decode()]
        policy = about.get("maxmemory_policy", "")
        if policy.startswith("allkeys") and about.get("maxmemory") != "0":
            said += (
                f"; and when memory is short, it throws acknowledged tasks away "
                f"(maxmemory-policy {policy}): set noeviction"
            )
        return said

    async def _about(self, section: str) -> dict[str, str]:
        lines = (await self._database.command("INFO", section)).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
