"""All four stores on one Redis server (6.2 or newer, or Valkey): one Lua script for each verb.

A script runs as a whole or not at all, and Redis' own clock measures leases. `lua/` has the
scripts, each with its keys explained at its top: what several share is in `keys.lua`,
`tasks.lua`, `results.lua`, `schedules.lua` and `answers.lua`. `database` runs them, over
`connections`, and persists when the server is away; `queue`, `results`, `events` and
`schedules` are the stores.
"""

from typing import TYPE_CHECKING

from omniq_nb.errors import StoreUnavailable

if TYPE_CHECKING:
    from omniq_nb.storage.redis.place import RedisPlace as RedisPlace


def __getattr__(name: str) -> object:
    """Import the place when it is asked for: it needs a driver that others do without."""
    if name != "RedisPlace":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from omniq_nb.storage.redis.place import RedisPlace
    except ModuleNotFoundError as error:
        if error.name not in ("redis", "hiredis"):
            raise
        raise StoreUnavailable(
            "Redis needs a driver that is not installed: pip install 'omniq_nb[redis]'"
        ) from error
    return RedisPlace
