"""PostgreSQL: a pool of connections, the server's clock, and notifications to wake who waits.

Driver is asyncpg: of it and psycopg, measured beside each other, it takes less of this process's
time for rows in bulk, and as long for one round trip.

A connection that is lost is made again, and the work in hand begun again, until the option
timeout is over. If it was lost during COMMIT, the server is asked what became of the transaction.

Not here: statements and what they mean (`transitions` and the stores), their form in PostgreSQL
(`postgres_statements`), connections (`postgres_connections`), words for errors
(`postgres_errors`).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from omniq_nb.config.options import PostgresOptions
from omniq_nb.storage.bell import Bell
from omniq_nb.storage.shared import Remote, Session
from omniq_nb.storage.sql.database import Answer, Database, Watch
from omniq_nb.storage.sql.place import SqlPlace
from omniq_nb.storage.sql.postgres_connections import (
    PAUSE_FIRST,
    PAUSE_LAST,
    Listener,
    Pool,
    channel,
    number_of,
)
from omniq_nb.storage.sql.postgres_errors import (
    FAILURES,
    explained,
    is_busy,
    is_conflict,
    is_lost,
    where,
)
from omniq_nb.storage.sql.postgres_queue import PostgresTaskQueue
from omniq_nb.storage.sql.postgres_reader import Reader
from omniq_nb.storage.sql.postgres_statements import DIALECT, quoted, with_literals
from omniq_nb.storage.sql.postgres_transaction import PostgresTransaction
from omniq_nb.storage.sql.schema import is_newest, upgrade

if TYPE_CHECKING:
    import pyarrow as pa

    from omniq_nb.storage.sql.postgres_connections import Connection

POLL = 0.5
"""Seconds between two looks at the queue while nobody can be notified."""

CONFLICTS = 20
"""How often transactions may be in each other's way before one of them gives up."""

_STATUS = "SELECT pg_xact_status($1::text::xid8)"
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = $1"
_VERSION = "SELECT version FROM omniq_schema"
_DURABILITY = """
    SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')
"""

log = logging.getLogger("omniq_nb.postgres")


class PostgresPlace(SqlPlace["PostgresDatabase"]):
    """A schema of a database, and the four stores in it.

    Parameters
    ----------
    location : None
        The place is in the options.
    options : PostgresOptions
        Where it is and how to use it.
    """

    def __init__(self, location: None, options: PostgresOptions) -> None:
        super().__init__(PostgresDatabase(options))
        self._schema = options.schema

    def task_queue(self) -> PostgresTaskQueue:
        """Give the tasks."""
        return PostgresTaskQueue(self._database, self._schema)

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""

        async def ask(tx: PostgresTransaction) -> dict[str, str]:
            return dict(await tx.fetch(_DURABILITY))

        settings = await self._database.read(ask)
        if settings["fsync"] == "off":
            durability = "survives crashes of processes, not power cuts (the server's fsync is off)"
        elif settings["synchronous_commit"] == "off":
            durability = (
                "survives crashes of our processes; the server's crash or a power cut may undo "
                "the last moments (synchronous_commit is off)"
            )
        else:
            durability = "survives crashes and power cuts"
        return {
            "durability": durability,
            "sharing": "all machines that reach the server",
            "exclusion": "one task has one worker: claims lock rows, and leases go by the "
            "server's clock",
        }


PostgresWork = Callable[[PostgresTransaction], Coroutine[Any, Any, Answer]]


class _Session(Session):
    """What belongs to one event loop of one process."""

    def __init__(self, options: PostgresOptions) -> None:
        super().__init__()
        self.pool = Pool(options)
        self.bell = Bell()
        self.listener = Listener(options, self.bell)
        self.reader = Reader(options)

    async def close(self) -> None:
        """Disconnect."""
        await self.listener.stop()
        await asyncio.to_thread(self.reader.close)
        await self.pool.close()


class _Unclear(Exception):
    """The connection was lost during COMMIT."""

    def __init__(self, transaction: "PostgresTransaction", answer: Any) -> None:
        self.transaction_id = transaction.id
        self.answer = answer


class PostgresDatabase(Remote[_Session], Database):
    """Our tables in a schema, connected for the first store and left after the last.

    Parameters
    ----------
    options : PostgresOptions
        As for `PostgresPlace`.
    """

    def __init__(self, options: PostgresOptions) -> None:
        if not options.database and not options.service and "PGDATABASE" not in os.environ:
            options = msgspec.structs.replace(options, database="omniq")
        super().__init__(where(options), options.timeout, log)
        self._options = options

    def _new_session(self) -> _Session:
        return _Session(self._options)

    async def _prepare(self, session: _Session) -> None:
        await self._persist(lambda: self._make_tables(session.pool), opening=True)

    async def _make_tables(self, pool: Pool) -> None:
        """Make the tables, or see that they are there: that takes no right to make them."""
        async with pool.connection() as connection:
            try:
                found = await connection.fetchval(_VERSION)
            except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
                found = None
            schema = self._options.schema
            place = f"The schema {schema!r} of {self._place}"
            if found is not None and is_newest(found, place):
                return
            async with connection.transaction():
                lock = number_of(schema) - 2**63
                await connection.execute("SELECT pg_advisory_xact_lock($1)", lock)
                if not await connection.fetchval(_HAS_SCHEMA, schema):
                    await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
                await upgrade(PostgresTransaction(connection), DIALECT, place)

    # ---------------------------------------------------------------- working

    async def read(self, work: PostgresWork[Answer]) -> Answer:
        """Read; see `Database`."""

        async def attempt() -> Answer:
            session = self._session()
            async with session.pool.connection() as connection:
                transaction = PostgresTransaction(connection)
                answer = await work(transaction)
            if transaction.notified:
                session.bell.ring()
            return answer

        return await self._persist(attempt)

    async def write(self, work: PostgresWork[Answer], size: int = 0) -> Answer:
        """Write; see `Database`."""
        unclear: list[_Unclear] = []

        async def attempt() -> Answer:
            async with self._session().pool.connection() as connection:
                if unclear:
                    async with asyncio.timeout(self._options.timeout):
                        if await _is_committed(connection, unclear[0].transaction_id):
                            answer: Answer = unclear[0].answer
                            return answer
                    unclear.clear()
                try:
                    return await self._transact(connection, work)
                except _Unclear as error:
                    unclear.append(error)
                    assert error.__cause__ is not None
                    raise error.__cause__ from None

        return await self._persist(attempt)

    async def _transact(self, connection: "Connection", work: PostgresWork[Answer]) -> Answer:
        transaction = PostgresTransaction(connection)
        await connection.execute("BEGIN")
        answer = await work(transaction)
        await transaction.identify()
        commit = "COMMIT"
        if transaction.notified:
            commit = f"NOTIFY {channel(self._options.schema)}; COMMIT"
        try:
            await connection.execute(commit)
        except FAILURES as error:
            if is_lost(error) and transaction.id is not None:
                raise _Unclear(transaction, answer) from error
            raise
        if transaction.notified:
            self._session().bell.ring()
        return answer

    async def _persist(
        self, attempt: Callable[[], Coroutine[Any, Any, Answer]], opening: bool = False
    ) -> Answer:
        """Try until it works, it cannot work, or the time is over."""
        ends_at = None
        pause, conflicts = PAUSE_FIRST, 0
        while True:
            try:
                answer = await attempt()
            except FAILURES as error:
                if is_conflict(error) and conflicts < CONFLICTS:
                    conflicts += 1
                    await asyncio.sleep(0)
                    continue
                words = explained(error, self._options)
                if not is_lost(error) or (opening and not is_busy(error)):
                    raise words from error
                if self._current is not None:
                    self._current.pool.discard()
                if ends_at is None:  # most often a new connection does it
                    ends_at = time.monotonic() + self._options.timeout
                elif time.monotonic() + pause > ends_at:
                    raise words from error
                else:
                    self._is_away(words)
            else:
                self._answers()
                return answer
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_LAST)

    # ---------------------------------------------------------------- watching

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch; see `Database`."""
        session = self._session()
        session.listener.start()
        with session.bell.listen() as heard:
            yield PostgresWatch(session.listener, heard)

    # ---------------------------------------------------------------- scanning

    async def table(
        self, statement: str, parameters: Sequence[object], columns: Sequence[tuple[str, str]]
    ) -> "pa.Table":
        """Read much; see `Database`. ADBC reads it by COPY, straight into Arrow, in a thread."""
        text = with_literals(statement, parameters)
        return await asyncio.to_thread(self._session().reader.read, text)


class PostgresWatch(Watch):
    """Hears what this process changes, and what others say that they changed.

    Parameters
    ----------
    listener : Listener
        Rings when others changed something.
    heard : asyncio.Event
        The bell.
    """

    def __init__(self, listener: Listener, heard: asyncio.Event) -> None:
        self._listener = listener
        self._heard = heard
        self._beginnings = listener.beginnings

    async def changed(self, timeout: float) -> bool:
        """Wait; see `Watch`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout if self._listener.live else min(timeout, POLL)):
                await self._heard.wait()
        if not self._heard.is_set():
            return False
        self._heard.clear()
        # When it begins to listen it rings too, perhaps before anybody waits: something may have
        # been missed, but nobody said that there is work.
        beginnings, self._beginnings = self._beginnings, self._listener.beginnings
        return self._beginnings == beginnings


async def _is_committed(connection: "Connection", id: str | None) -> bool:
    """Ask what became of a transaction whose commit was not answered."""
    try:
        while (status := await connection.fetchval(_STATUS, id)) == "in progress":
            await asyncio.sleep(PAUSE_FIRST)
    except asyncpg.InvalidParameterValueError:
        return False  # a standby took over, which never heard of it
    return bool(status == "committed")
