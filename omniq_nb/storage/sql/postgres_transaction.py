"""Statements on a connection to PostgreSQL.

Many rows go in by COPY; where one of them is known already, all of them go in by the statement
instead, which says what to do about it.

Not here: when they are committed (`postgres`), and their form (`postgres_statements`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg

from omniq_nb.storage.sql.database import Row, Transaction
from omniq_nb.storage.sql.postgres_statements import arrays, copy_of, row_names, sql

if TYPE_CHECKING:
    from omniq_nb.storage.sql.postgres_connections import Connection

COPY_FROM = 64
"""So many rows at least go by COPY, which takes two or three round trips more."""

_PROSE = frozenset({"error", "traceback", "output", "message"})
"""Columns with text for people, which is stored even if a character of it cannot be."""

_ID = "SELECT pg_current_xact_id_if_assigned()::text"
_NOW = f"{_ID}, extract(epoch FROM clock_timestamp())::float8"
_NUMBERS = """
    SELECT array_agg(nextval('omniq_calls_seq_seq')), pg_current_xact_id()::text
    FROM generate_series(1, $1)
"""


class PostgresTransaction(Transaction):
    """Statements on a connection.

    Parameters
    ----------
    connection : asyncpg.Connection
        In a transaction; without one, each statement is its own.

    Attributes
    ----------
    id : str or None
        The server's number of this transaction, if it was heard of: it tells later what became
        of it.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._now: float | None = None
        self._counted = False
        self.id: str | None = None
        self.notified = False

    async def now(self) -> float:
        """Tell the server's time, the same all along; see `Transaction`."""
        if self._now is None:
            row = await self._connection.fetchrow(_NOW)
            assert row is not None
            self.id, self._now = row[0] or self.id, row[1]
        return self._now

    async def numbers(self, count: int) -> Sequence[int]:
        """Give numbers; see `Transaction`."""
        row = await self._connection.fetchrow(_NUMBERS, count)
        assert row is not None
        self.id = row[1]
        numbers: list[int] = row[0]
        return numbers

    async def fetch(self, statement: str, *parameters: object) -> list[Row]:
        """Run one; see `Transaction`."""
        return [*map(tuple, await self._connection.fetch(sql(statement), *parameters))]

    async def execute(self, statement: str, *parameters: object) -> int:
        """Run one; see `Transaction`."""
        self._counted = True
        return _changed(await self._connection.execute(sql(statement), *parameters))

    async def fetch_each(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        """Run one; see `Transaction`."""
        if not rows:
            return []
        return [*map(tuple, await self._connection.fetch(sql(statement), *arrays(rows)))]

    async def execute_each(self, statement: str, rows: Sequence[Row], *parameters: object) -> int:
        """Run one, or copy the rows; see `Transaction`."""
        if not rows:
            return 0
        rows = storable(rows, row_names(statement))
        if len(rows) >= COPY_FROM and not parameters and await self._copy(statement, rows):
            return len(rows)
        status = await self._connection.execute(sql(statement), *parameters, *arrays(rows))
        return _changed(status)

    async def _copy(self, statement: str, rows: Sequence[Row]) -> bool:
        """Insert rows the fast way. False: it is no INSERT, or a row is known already."""
        copy = copy_of(statement)
        if copy is None:
            return False
        if copy.may_conflict:
            await self._connection.execute("SAVEPOINT copy")
        try:
            await self._connection.copy_records_to_table(
                copy.table, columns=copy.columns, records=rows
            )
        except asyncpg.UniqueViolationError:
            if not copy.may_conflict:
                raise
            await self._connection.execute("ROLLBACK TO copy")
            return False
        return True

    async def identify(self) -> None:
        """Learn `id`, if what was done must not be done twice and it was not heard of yet."""
        if self._counted and self.id is None:
            self.id = await self._connection.fetchval(_ID)

    async def hold_off_adding(self) -> None:
        """Lock the table against new rows; see `Transaction`."""
        await self._connection.execute("LOCK TABLE omniq_calls IN SHARE ROW EXCLUSIVE MODE")

    def notify(self) -> None:
        """Send a notification with the commit; see `Transaction`."""
        self.notified = True


def _changed(status: str) -> int:
    """Read the number of rows from what the server says of a statement, as in ``UPDATE 3``."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def storable(rows: Sequence[Row], names: Sequence[str]) -> Sequence[Row]:
    """Give rows without the characters that PostgreSQL does not store in text for people."""
    prose = [index for index, name in enumerate(names) if name in _PROSE]
    if not prose:
        return rows
    stored = list(rows)
    for number, row in enumerate(rows):
        for index in prose:
            text = row[index]
            if text is not None and ("\0" in text or not text.isascii()):
                clean = text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()
                row = (*row[:index], clean, *row[index + 1 :])
        stored[number] = row
    return stored
