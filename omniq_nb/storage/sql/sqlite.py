"""SQLite: one connection for each place, guarded by a lock, used by whichever thread calls.

Without an event loop a call blocks until it is done. On a running loop it is tried at once, for
some milliseconds at most; what would take longer (another process writes, another thread has the
lock, there is much to do) is rolled back and done again in a thread.

Two copies of the SQLite library must never open the same file in one process: each cancels the
other's locks, and data is lost (https://sqlite.org/howtocorrupt.html, section 2.2.1). ADBC and
DuckDB bring their own copies, so they are only ever given a file that nobody else has open.

Not here: statements and what they mean (`transitions` and the stores).
"""

import asyncio
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from omniq_nb.config.options import SqliteOptions
from omniq_nb.errors import StoreClosed, StoreError, StoreUnavailable
from omniq_nb.storage.bell import Bell
from omniq_nb.storage.sql.database import Answer, Database, Dialect, Row, Transaction, Watch, Work
from omniq_nb.storage.sql.place import SqlPlace
from omniq_nb.storage.sql.schema import upgrade

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = ":memory:"

INLINE = 0.005
"""Seconds that a call may hold up a running loop before it goes to a thread."""

BIG = 1_000_000
"""Bytes that go to a thread at once: copying them cannot be interrupted."""

CHECKPOINT_PAGES = 4_000
"""Pages in the log, 16 MB, that one commit writes back into the database: a quarter as often as
SQLite would, since that commit waits for the disk."""

DIALECT = Dialect(
    serial="INTEGER", bytes="BLOB", clustered="WITHOUT ROWID", lock="", skip_locked=""
)

# Few sizes, so that few statements are compiled. One statement for many rows is not only faster:
# sqlite3 gives up the GIL at each statement, and gets it back late when other threads compute.
_STEPS = (256, 64, 16, 4, 1)

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NOT_OURS = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


class SqlitePlace(SqlPlace["SqliteDatabase"]):
    """A database file, and the four stores in it.

    Parameters
    ----------
    path : str
        The file, created when missing, folders included; or ``":memory:"``.
    options : SqliteOptions
        How to use it.
    """

    def __init__(self, path: str, options: SqliteOptions) -> None:
        super().__init__(SqliteDatabase(path, options))

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        exclusion = "one task has one worker: claims are transactions, one writer at a time"
        if self._database.path == MEMORY:
            return {
                "durability": "gone with this process",
                "sharing": "this process only",
                "exclusion": exclusion,
            }
        return {
            "durability": self._database.durability,
            "sharing": "all processes of this machine",
            "exclusion": exclusion,
        }


class _Busy(Exception):
    """Not now: somebody else writes, or it would take too long here."""


class SqliteDatabase(Database):
    """A connection to a database file, opened for the first store and closed after the last.

    Parameters
    ----------
    path : str
        As for `SqlitePlace`.
    options : SqliteOptions
        As for `SqlitePlace`.
    """

    immediate: ClassVar[bool] = True

    def __init__(self, path: str, options: SqliteOptions) -> None:
        self.path = path
        self._options = options
        self._users: set[object] = set()
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._bell = Bell()
        self._pid = os.getpid()
        self._give_up_at = inf

    @property
    def durability(self) -> str:
        """What survives, in words, as the options have it."""
        if self._options.synchronous == "OFF" or self._options.journal_mode == "MEMORY":
            return "survives crashes of processes, not power cuts"
        if self._options.synchronous == "NORMAL" and self._options.journal_mode == "WAL":
            return "survives crashes; a power cut may undo the last moments (synchronous: NORMAL)"
        return "survives crashes and power cuts"

    # ---------------------------------------------------------------- opening

    async def open(self, user: object) -> None:
        """Connect; see `Database`."""
        await _maybe_in_thread(self._open, user)

    async def close(self, user: object) -> None:
        """Disconnect; see `Database`."""
        await _maybe_in_thread(self._close, user)

    def _open(self, user: object) -> None:
        self._check_process()
        with self._lock:
            if self._connection is None:
                self._connection = self._patiently(self._connect)
            self._users.add(user)

    def _close(self, user: object) -> None:
        self._check_process()
        with self._lock:
            self._users.discard(user)
            if not self._users and self._connection is not None:
                # The last one out writes the log back into the file, and deletes it.
                connection, self._connection = self._connection, None
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        if self.path != MEMORY:
            try:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(
                    f"The folder of the database {self.path!r} cannot be created: {error}"
                ) from error
        with _in_words(self.path):
            connection = self._plain_connection()
            try:
                connection.execute(f"PRAGMA journal_mode = {self._options.journal_mode}")
                connection.execute(f"PRAGMA synchronous = {self._options.synchronous}")
                connection.execute(f"PRAGMA cache_size = {self._options.cache_size:d}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
                where = f"The database {self.path!r}"
                self._transact(connection, lambda tx: upgrade(tx, DIALECT, where))
                connection.set_progress_handler(lambda: time.monotonic() > self._give_up_at, 20_000)
            except BaseException:
                connection.close()
                raise
        return connection

    def _plain_connection(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path,
            timeout=0,  # we wait ourselves: SQLite's own waiting cannot be interrupted
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _connected(self) -> sqlite3.Connection:
        """Give the connection to whoever has the lock."""
        if self._connection is None:
            if not self._users:
                raise StoreClosed(f"The database {self.path!r} is closed.")
            self._connection = self._patiently(self._connect)  # this is a forked child
        return self._connection

    def _check_process(self) -> None:
        """Forget what a forked child inherited: neither connection nor lock may be used in it."""
        if self._pid == os.getpid():
            return
        if self.path == MEMORY and self._connection is not None:
            raise StoreUnavailable(
                f"A database in memory belongs to the process that opened it ({self._pid}); this "
                f"is its forked child ({os.getpid()}). Use a file to share it among processes."
            )
        _inherited.append(self._connection)
        self._connection = None
        self._lock, self._bell, self._pid = threading.Lock(), Bell(), os.getpid()

    # ---------------------------------------------------------------- working

    async def read(self, work: Work[Answer]) -> Answer:
        """Read; see `Database`."""
        return await self._do(work, "BEGIN")

    async def write(self, work: Work[Answer], size: int = 0) -> Answer:
        """Write; see `Database`."""
        return await self._do(work, "BEGIN IMMEDIATE", size)

    async def _do(self, work: Work[Answer], begin: str, size: int = 0) -> Answer:
        if not _on_a_loop():
            return self._patiently(lambda: self._attempt(work, begin))
        if size < BIG:
            try:
                return self._attempt_briefly(work, begin)
            except _Busy:
                pass
        return await asyncio.to_thread(self._patiently, lambda: self._attempt(work, begin))

    def _patiently(self, attempt: Callable[[], Answer]) -> Answer:
        """Try until it works or the time is over. In between others get the lock."""
        ends_at = time.monotonic() + self._options.timeout
        pause = 0.001
        while True:
            try:
                return attempt()
            except _Busy as busy:
                if time.monotonic() + pause > ends_at:
                    raise StoreError(
                        f"The database {self.path!r} was locked for {self._options.timeout:g} "
                        "seconds, so nothing was written. Another process writes for so long, "
                        "or has stopped in the middle of it: look for a program that has the "
                        "file open (`lsof` shows them), and end it; or raise the option timeout."
                    ) from busy
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, 0.02)

    def _attempt_briefly(self, work: Work[Answer], begin: str) -> Answer:
        """Try on a running loop."""
        ends_at = time.monotonic() + INLINE
        while self._lock.locked():
            if time.monotonic() > ends_at:
                raise _Busy
            time.sleep(0.0001)
        return self._attempt(work, begin, ends_at)

    def _attempt(self, work: Work[Answer], begin: str, give_up_at: float = inf) -> Answer:
        self._check_process()
        with self._lock:
            connection = self._connected()
            self._give_up_at = give_up_at
            try:
                answer, notify = self._transact(connection, work, begin)
            except sqlite3.Error as error:
                raise _explained(error, self.path) from error
        if notify:
            self._bell.ring()
        return answer

    @staticmethod
    def _transact(
        connection: sqlite3.Connection, work: Work[Answer], begin: str = "BEGIN IMMEDIATE"
    ) -> tuple[Answer, bool]:
        transaction = SqliteTransaction(connection)
        try:
            if connection.in_transaction:  # of a call that was interrupted while it cleaned up
                connection.rollback()
            connection.execute(begin)
            answer = finish(work(transaction))
            connection.execute("COMMIT")
        except BaseException:
            # SQLite may have done so by itself, for example when the disk was full.
            if connection.in_transaction:
                connection.rollback()
            raise
        return answer, transaction.notified

    # ---------------------------------------------------------------- watching

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch; see `Database`."""
        if _on_a_loop():
            with self._bell.listen() as heard:
                yield SqliteWatch(self, heard)
        else:
            yield SqliteWatch(self, None)

    def version(self) -> tuple[int, int]:
        """Two numbers of which one changes with each commit: by others, and by ourselves."""
        self._check_process()
        with self._lock, _in_words(self.path):
            connection = self._connected()
            ((others,),) = connection.execute("PRAGMA data_version")
            return others, connection.total_changes

    # ---------------------------------------------------------------- scanning

    async def table(
        self, statement: str, parameters: Sequence[object], columns: Sequence[tuple[str, str]]
    ) -> "pa.Table":
        """Read much; see `Database`.

        SQLite copies the rows into a file of their own, and ADBC reads that: both in C, without
        the GIL, which sqlite3 would give up and fight for at each single row.
        """
        return await _maybe_in_thread(self._table, statement, parameters, columns)

    def _table(
        self, statement: str, parameters: Sequence[object], columns: Sequence[tuple[str, str]]
    ) -> "pa.Table":
        with TemporaryDirectory(prefix="omniq-") as folder:
            copy = str(Path(folder, "rows.db"))
            self._patiently(lambda: self._copy(copy, statement, parameters, columns))
            return _read_copy(copy)

    def _copy(
        self,
        copy: str,
        statement: str,
        parameters: Sequence[object],
        columns: Sequence[tuple[str, str]],
    ) -> None:
        names = ", ".join(f"{name} {type}" for name, type in columns)
        samples = ", ".join({"TEXT": "''", "BIGINT": "0"}.get(type, "0.5") for _, type in columns)
        with self._reader() as connection, _in_words(copy):
            connection.execute("ATTACH ? AS copy", (copy,))
            try:
                connection.execute("PRAGMA copy.journal_mode = OFF")
                connection.execute("PRAGMA copy.synchronous = OFF")
                connection.execute("DROP TABLE IF EXISTS copy.found")
                connection.execute(f"CREATE TABLE copy.found ({names})")
                # ADBC concludes from the first rows what a column holds: the first one tells it.
                connection.execute(f"INSERT INTO copy.found VALUES ({samples})")
                connection.execute(f"INSERT INTO copy.found {statement}", parameters)
            finally:
                connection.execute("DETACH copy")

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that may be busy for long."""
        if self.path == MEMORY:
            self._check_process()
            with self._lock:
                self._give_up_at = inf
                yield self._connected()
        else:
            with _in_words(self.path), closing(self._plain_connection()) as connection:
                yield connection


class SqliteTransaction(Transaction):
    """Statements on a connection. It never suspends.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.notified = False

    async def now(self) -> float:
        """Tell the time; see `Transaction`."""
        return time.time()

    async def numbers(self, count: int) -> Sequence[int]:
        """Give numbers; see `Transaction`."""
        ((last,),) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM omniq_calls")
        return range(last + 1, last + 1 + count)

    async def fetch(self, statement: str, *parameters: object) -> list[Row]:
        """Run one; see `Transaction`."""
        return self._connection.execute(sql(statement), parameters).fetchall()

    async def execute(self, statement: str, *parameters: object) -> int:
        """Run one; see `Transaction`."""
        return self._connection.execute(sql(statement), parameters).rowcount

    async def fetch_each(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        """Run one in steps; see `Transaction`."""
        found: list[Row] = []
        for step in _steps(rows):
            found += self._connection.execute(
                sql(statement, len(step), len(step[0])), tuple(chain.from_iterable(step))
            )
        return found

    async def execute_each(self, statement: str, rows: Sequence[Row], *parameters: object) -> int:
        """Run one in steps; see `Transaction`."""
        changed = 0
        for step in _steps(rows):
            changed += self._connection.execute(
                sql(statement, len(step), len(step[0])), (*parameters, *chain.from_iterable(step))
            ).rowcount
        return changed

    async def hold_off_adding(self) -> None:
        """Nobody else writes meanwhile anyway; see `Transaction`."""

    def notify(self) -> None:
        """Ring the bell; see `Transaction`. Other processes see it by themselves."""
        self.notified = True


class SqliteWatch(Watch):
    """Hears what this process changes, and looks often for what others change.

    Parameters
    ----------
    database : SqliteDatabase
        What to watch.
    heard : asyncio.Event or None
        The bell; None where there is no loop.
    """

    def __init__(self, database: SqliteDatabase, heard: asyncio.Event | None) -> None:
        self._database = database
        self._heard = heard
        self._seen = database.version()

    async def changed(self, timeout: float) -> bool:
        """Wait; see `Watch`."""
        ends_at = time.monotonic() + timeout
        pause = 0.005
        while (left := ends_at - time.monotonic()) > 0:
            if self._heard is None:
                time.sleep(min(pause, left))
            elif await _set_within(self._heard, min(pause, left)):
                self._heard.clear()
                return True
            seen, self._seen = self._seen, self._database.version()
            if seen != self._seen:
                break
            pause = min(pause * 1.2, 0.05)
        return False


_inherited: list[sqlite3.Connection | None] = []
"""Connections of a parent process: to close one would disturb it."""


def _read_copy(path: str) -> "pa.Table":
    from adbc_driver_manager.dbapi import Error
    from adbc_driver_sqlite import dbapi

    try:
        with dbapi.connect(path) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM found ORDER BY rowid")
            return cursor.fetch_arrow_table().slice(1)
    except Error as error:
        raise StoreError(f"The rows that were found could not be read: {error}") from error


@lru_cache(maxsize=1024)
def sql(statement: str, rows: int = 0, width: int = 0) -> str:
    """Give a statement as SQLite wants it, for so many rows of so many parameters."""
    row = f"({', '.join('?' * width)})"
    return statement.format(rows=", ".join([row] * rows), **DIALECT._asdict())


def _steps(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    for size in _STEPS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def finish(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        answer: Answer = finished.value
        return answer
    coroutine.close()
    raise RuntimeError("work on SQLite waited for something else than SQLite")


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _maybe_in_thread(function: Callable[..., Answer], *arguments: object) -> Answer:
    """Call what may take long: in a thread if that would hold up a running loop."""
    if _on_a_loop():
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """Say what the errors of SQLite mean."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error


def _explained(error: sqlite3.Error, path: str) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest are details
    if code in (*_BUSY, sqlite3.SQLITE_INTERRUPT):
        return _Busy()
    database = f"the database {path!r}"
    if code == sqlite3.SQLITE_FULL:
        return StoreError(
            f"The disk is full: {database} took nothing of this. Make room, or purge old tasks, "
            "results and events, and try again."
        )
    if code in _NOT_OURS:
        return StoreUnavailable(
            f"{path!r} is not a database, or it is damaged ({error}). Choose another file, or "
            "restore it from a backup."
        )
    if code in _NO_ACCESS:
        return StoreUnavailable(
            f"SQLite may not open or write {database} ({error}). Check that its folder exists and "
            "that you may write both the file and the folder."
        )
    return StoreError(f"SQLite could not use {database}, and wrote nothing: {error}")
