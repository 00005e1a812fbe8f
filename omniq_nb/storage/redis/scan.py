"""Rows for DuckDB: batches of what is stored become Arrow tables.

Loads pyarrow, so the stores import it only when somebody scans.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pyarrow as pa

from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.task import Task
from omniq_nb.storage.base import Query, Scan
from omniq_nb.storage.tables import one_of_each, select, table


async def scan(
    batches: AsyncIterator[list[bytes]],
    rows_of: Callable[[list[bytes]], Sequence[Task | Result | Event]],
    schema: pa.Schema,
    key: str,
    query: Query,
) -> Scan:
    """Read batches of what is stored into one table.

    Parameters
    ----------
    batches : asynchronous iterator
        What is stored, in parts.
    rows_of : callable
        Makes structs of such a part.
    schema : pyarrow.Schema
        Of the component.
    key : str
        The column that tells rows apart: of several with the same, the last one counts.
    query : Query
        Says which columns are asked for.
    """
    wanted = select(schema, query.columns).names
    read = select(schema, tuple(dict.fromkeys((*wanted, key))))

    def tabled(batch: list[bytes]) -> pa.Table:
        return table(rows_of(batch), read)

    tables = [await asyncio.to_thread(tabled, batch) async for batch in batches]
    found = pa.concat_tables(tables) if tables else read.empty_table()
    return Scan(one_of_each(found, key, "max").select(wanted))
