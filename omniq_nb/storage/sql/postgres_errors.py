"""What the errors of PostgreSQL and its driver mean, in words, and which of them pass.

Not here: trying again (`omniq_nb.storage.sql.postgres`).
"""

import ssl
from urllib.parse import quote

import asyncpg
from asyncpg import exceptions as pg

from omniq_nb.config.options import PostgresOptions
from omniq_nb.errors import StoreError, StoreUnavailable

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that the driver raises of itself. A time-out is an `OSError`."""

GRANTS = "docs/backends.md lists the grants that are needed"

_CONFLICTS = (
    pg.SerializationError,
    pg.DeadlockDetectedError,
    pg.InvalidCachedStatementError,
)
_BUSY = (pg.CannotConnectNowError, pg.TooManyConnectionsError)
# A server that became a standby no longer writes: another one does, at the same address or not.
_LOST = (
    pg.PostgresConnectionError,
    pg.OperatorInterventionError,
    pg.ReadOnlySQLTransactionError,
    pg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions were in each other's way: the same may work right now."""
    return isinstance(error, _CONFLICTS)


def is_lost(error: BaseException) -> bool:
    """Whether the connection or its server is gone, or in trouble that passes."""
    wrong_value = isinstance(error, pg.DataError | asyncpg.exceptions.DataError | ValueError)
    return isinstance(error, _LOST + _BUSY) and not wrong_value


def is_busy(error: BaseException) -> bool:
    """Whether a server is there, and cannot take connections at the moment."""
    return isinstance(error, _BUSY)


def where(options: PostgresOptions) -> str:
    """Name a database as a user knows it, with nothing secret."""
    if options.service is not None:
        return f"PostgreSQL service {options.service!r}"
    host = options.host or "PGHOST or localhost"
    address = host if options.port is None else f"{host}:{options.port}"
    database = repr(options.database) if options.database else "of PGDATABASE"
    return f"PostgreSQL database {database} at {address}"


def said(error: BaseException, options: PostgresOptions) -> str:
    """Give the words of an error, with nothing secret."""
    words = str(error) or type(error).__name__
    for secret in (options.password, quote(options.password or "", safe="")):
        if secret:
            words = words.replace(secret, "***")
    return words


def explained(error: BaseException, options: PostgresOptions) -> StoreError:
    """Say what happened, and what to do about it."""
    words, place = said(error, options), where(options)
    if isinstance(error, pg.InvalidAuthorizationSpecificationError):
        return StoreUnavailable(
            f"{place} does not let this user in: {words}. Check user name and password (in the "
            "URL, in the options, in ~/.pgpass or in PGPASSWORD) and the server's pg_hba.conf."
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return StoreUnavailable(
            f"{place} showed a certificate that is not trusted: {words}. Name the certificates "
            "that it must come from with the option sslrootcert."
        )
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return StoreUnavailable(
            f"{place} cannot be reached as it is configured: {words}. Check sslmode, the paths of "
            "the certificates, and the service file."
        )
    if isinstance(error, pg.InvalidCatalogNameError):
        return StoreUnavailable(f"{place} does not exist: create it (createdb), or name another.")
    if isinstance(error, pg.InsufficientPrivilegeError):
        return StoreUnavailable(
            f"The user lacks a right in {place}, schema {options.schema!r}: {words}. Somebody who "
            f"may must grant it, or make the tables by connecting once; {GRANTS}."
        )
    if isinstance(error, pg.DiskFullError):
        return StoreError(
            f"The disk of {place} is full: it took nothing of this. Make room there, or purge old "
            "tasks, results and events, and try again."
        )
    if isinstance(error, pg.UndefinedTableError | pg.InvalidSchemaNameError):
        return StoreError(
            f"Tables are missing in {place}, schema {options.schema!r} ({words}): somebody deleted "
            "them. Connect again to make new ones."
        )
    if isinstance(error, TimeoutError):
        return StoreUnavailable(
            f"{place} did not answer within {options.timeout:g} seconds. Check that it runs and "
            "is not overloaded, or raise the option timeout."
        )
    if isinstance(error, pg.TooManyConnectionsError):
        return StoreUnavailable(
            f"{place} takes no more connections: {words}. Close some, lower the option "
            "max_connections, or raise the server's own."
        )
    if is_lost(error):
        return StoreUnavailable(
            f"{place} cannot be reached: {words}. Check that the server runs, its address and "
            "port, and that no firewall is in between."
        )
    return StoreError(f"{place} refused this, and wrote nothing: {words}")
