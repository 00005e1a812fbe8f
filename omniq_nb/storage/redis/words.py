"""What the errors of Redis and its driver mean, in words, and which of them pass.

Not here: trying again (`omniq_nb.storage.redis.database`).
"""

from redis import exceptions as redis

from omniq_nb.config.options import RedisOptions
from omniq_nb.errors import StoreError, StoreUnavailable

FAILURES = (redis.RedisError, OSError)
"""All that the driver raises of itself. A time-out is an `OSError`."""

_REFUSED = (redis.AuthenticationError, redis.AuthorizationError)

# A server that became a replica no longer writes: another one does, at the same address or not.
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.ClusterDownError,
    redis.MasterDownError,
    redis.TryAgainError,
    OSError,
)
_PASSING_WORDS = ("BUSY ", "NOREPLICAS ")

CROWDED = "max number of clients"


def is_lost(error: BaseException) -> bool:
    """Whether the connection or its server is gone, or in trouble that passes."""
    if isinstance(error, _REFUSED) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_WORDS)


def is_busy(error: BaseException) -> bool:
    """Whether a server is there, and cannot serve at the moment."""
    alive = isinstance(error, redis.BusyLoadingError | redis.ResponseError)
    return is_lost(error) and (alive or CROWDED in str(error))


def where(options: RedisOptions) -> str:
    """Name a server as a user knows it, with nothing secret."""
    socket = options.host.startswith("/")
    address = options.host if socket else f"{options.host}:{options.port}"
    return f"Redis server at {address}, database {options.database}"


def explained(error: BaseException, options: RedisOptions) -> StoreError:
    """Say what happened, and what to do about it."""
    said = str(error) or type(error).__name__
    if options.password:
        said = said.replace(options.password, "***")
    place = where(options)
    if isinstance(error, redis.NoPermissionError):
        return StoreUnavailable(
            f"This user lacks a right on the {place}: {said}. Somebody who may must grant it; "
            "docs/backends.md has the ACL that is needed."
        )
    if isinstance(error, _REFUSED):
        return StoreUnavailable(
            f"The {place} does not let this user in: {said} Check user name and password, in "
            "the URL or in the options."
        )
    if isinstance(error, redis.OutOfMemoryError):
        return StoreError(
            f"The {place} is out of memory and took nothing of this: {said}. Raise its maxmemory, "
            "or purge old tasks, results and events, and try again."
        )
    if said.startswith("MISCONF"):
        return StoreError(
            f"The {place} cannot write to its disk and takes nothing of this until it can: {said}. "
            "Make room there, or look into its log."
        )
    if isinstance(error, redis.MovedError):
        return StoreUnavailable(
            f"The {place} is a node of a Redis Cluster, and all keys with the prefix "
            f"{options.prefix!r} are on the node {error.host}:{error.port}: give that address."
        )
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return StoreUnavailable(
            f"The {place} did not answer within {options.timeout:g} seconds. Check that it runs "
            "and is not overloaded, or raise the option timeout."
        )
    if CROWDED in said:
        return StoreUnavailable(
            f"The {place} takes no more connections: {said}. Close some, lower the option "
            "max_connections, or raise the server's maxclients."
        )
    if isinstance(error, redis.BusyLoadingError):
        return StoreUnavailable(
            f"The {place} still reads its data from the disk: {said} Try later."
        )
    if is_lost(error):
        return StoreUnavailable(
            f"The {place} cannot be reached: {said} Check that the server runs, its address and "
            "port, whether it wants TLS (rediss://), and that no firewall is in between."
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return StoreUnavailable(
            f"The {place} showed a certificate that is not trusted: {said} Name the certificates "
            "that it must come from with the option ssl_ca_certs."
        )
    return StoreError(f"The {place} refused this, and wrote nothing: {said}")
