"""Connections to PostgreSQL: how they are made, a pool of them, and one that listens.

All of them belong to one event loop of one process.

Not here: what errors mean (`postgres_errors`) and trying again (`postgres`).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlencode

import asyncpg

from omniq_nb.config.options import PostgresOptions
from omniq_nb.storage.bell import Bell
from omniq_nb.storage.sql.postgres_errors import FAILURES
from omniq_nb.storage.sql.postgres_statements import quoted

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    AnyConnection: TypeAlias = Connection | PoolConnectionProxy[asyncpg.Record]

IDLE = 60.0
"""Seconds after which a connection that nobody needed is closed."""

PROBE = 30.0
"""Seconds after which the listener asks whether its connection still lives."""

PAUSE_FIRST, PAUSE_LAST = 0.05, 2.0
"""Seconds between two attempts to reach a server."""

_SESSION = {
    "application_name": "omniq_nb",
    "jit": "off",  # compiling takes longer than any of our statements
    "timezone": "UTC",
    # Each statement is made for one plan: nested loops over indexes. PostgreSQL would plan them
    # again and again, and go by statistics that are old when a queue has filled or run empty.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    # A process that is frozen or cut off in the middle of a transaction keeps its locks no longer.
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


def libpq_url(options: PostgresOptions, complete: bool = False) -> str:
    """Give the connection URL that the driver and libpq understand alike.

    Errors quote URLs: the password, and our schema, are in it only if it shall be `complete`.
    """
    user = quote(options.username, safe="") if options.username else ""
    query = {
        "service": options.service,
        "port": None if options.host else options.port,
        "sslmode": options.sslmode,
        "sslrootcert": options.sslrootcert,
        "sslcert": options.sslcert,
        "sslkey": options.sslkey,
    }
    if complete:
        schema = quoted(options.schema).replace("\\", "\\\\").replace(" ", "\\ ")
        query["options"] = f"-csearch_path={schema} -ctimezone=UTC"
        if options.password:
            user += ":" + quote(options.password, safe="")
    hosts = [_address(host, options.port) for host in (options.host or "").split(",")]
    if len(hosts) > 1:
        query["target_session_attrs"] = "read-write"
    given = urlencode({name: value for name, value in query.items() if value}, quote_via=quote)
    # Without a name no slash: after one the driver would not look for PGDATABASE.
    database = "/" + quote(options.database, safe="") if options.database else ""
    url = f"postgresql://{user}{'@' if user else ''}{','.join(hosts)}{database}"
    return f"{url}?{given}" if given else url


def _address(host: str, port: int | None) -> str:
    if host.startswith("/"):
        host = quote(host, safe="")  # the folder of a socket
    elif host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # an address of IPv6
    has_port = host.rpartition(":")[2].isdigit()
    return host if has_port or not host or port is None else f"{host}:{port}"


async def connect(options: PostgresOptions) -> "Connection":
    """Make a connection whose unqualified names are those of our schema."""
    connection: Connection = await asyncpg.connect(
        libpq_url(options),
        password=options.password,
        timeout=options.timeout,
        command_timeout=options.timeout,
        server_settings={**_SESSION, "search_path": quoted(options.schema)},
        max_cached_statement_lifetime=0,
    )
    return connection


class Pool:
    """Connections that are used again, the last one first.

    Parameters
    ----------
    options : PostgresOptions
        Where, and how many.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._idle: list[tuple[float, Connection]] = []
        self._places = asyncio.Semaphore(options.max_connections)
        self._trimming: asyncio.TimerHandle | None = None
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        """Lend a connection. One on which something went wrong is not used again."""
        async with self._places:
            connection = self._take() or await connect(self._options)
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            if self._closed or connection.is_closed():
                connection.terminate()
                return
            self._idle.append((time.monotonic(), connection))
            if self._trimming is None and len(self._idle) > self._options.min_connections:
                self._trim_later()

    def _take(self) -> "Connection | None":
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _trim_later(self) -> None:
        self._trimming = asyncio.get_running_loop().call_later(IDLE, self._trim)

    def _trim(self) -> None:
        self._trimming = None
        surplus = len(self._idle) - self._options.min_connections
        horizon = time.monotonic() - IDLE
        old = [one for one in self._idle[: max(0, surplus)] if one[0] < horizon]
        del self._idle[: len(old)]
        for _, connection in old:
            connection.terminate()
        if len(self._idle) > self._options.min_connections:
            self._trim_later()

    def discard(self) -> None:
        """Close the idle connections at once: where one was lost, the others may be too."""
        while self._idle:
            self._idle.pop()[1].terminate()

    async def close(self) -> None:
        """Close the idle connections in good order, and the others when they come back."""
        self._closed = True
        if self._trimming is not None:
            self._trimming.cancel()
        idle, self._idle = self._idle, []
        for _, connection in idle:
            with suppress(*FAILURES):
                await connection.close(timeout=2.0)


def channel(schema: str) -> str:
    """Name the channel on which those who use a schema wake each other."""
    return f"omniq_{number_of(schema):016x}"


def number_of(schema: str) -> int:
    """Give a number for a schema, the same everywhere."""
    return int.from_bytes(blake2b(schema.encode(), digest_size=8).digest())


class Listener:
    """A connection of its own that hears the notifications, and is made again when it is lost.

    Parameters
    ----------
    options : PostgresOptions
        Where.
    bell : Bell
        Rung when something was heard, or may have been missed.

    Attributes
    ----------
    live : bool
        Whether it hears. Otherwise look yourself.
    beginnings : int
        How often it began to hear.
    """

    def __init__(self, options: PostgresOptions, bell: Bell) -> None:
        self._options = options
        self._bell = bell
        self._task: asyncio.Task[None] | None = None
        self.live = False
        self.beginnings = 0

    def start(self) -> None:
        """Begin to listen, if it does not yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen_for_ever(), name="omniq listens")

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _listen_for_ever(self) -> None:
        pause = PAUSE_FIRST
        while True:
            with suppress(*FAILURES):
                connection = await connect(self._options)
                try:
                    await self._listen(connection)
                    pause = PAUSE_FIRST
                finally:
                    self.live = False
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_LAST)

    async def _listen(self, connection: "Connection") -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(channel(self._options.schema), self._hear)
        self.live = True
        self.beginnings += 1
        self._bell.ring()
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE):
                    await lost.wait()
                return
            await connection.execute("SELECT 1")

    def _hear(self, *_: object) -> None:
        self._bell.ring()
