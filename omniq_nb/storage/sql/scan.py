"""Rows for DuckDB: the SELECT for a query, and its raw columns as those of the Arrow schema.

Loads pyarrow, so the stores import it only when somebody scans.
"""

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from omniq_nb.storage.base import Query, Scan
from omniq_nb.storage.sql.database import Database
from omniq_nb.storage.tables import EVENTS, RESULTS, TASKS, TIME, one_of_each, select

_TEXTS = pa.list_(pa.string())
_SQL_TYPES = {pa.int64(): "BIGINT", pa.float64(): "DOUBLE PRECISION", TIME: "DOUBLE PRECISION"}


async def scan_tasks(database: Database, query: Query) -> Scan:
    """Tasks, from two tables."""
    source = "omniq_calls JOIN omniq_tasks ON omniq_tasks.seq = omniq_calls.seq"
    return Scan(await _read(database, source, TASKS, query, "created_at", query.columns))


async def scan_results(database: Database, query: Query) -> Scan:
    """Results; the payload is not a column of theirs."""
    return Scan(
        await _read(database, "omniq_results", RESULTS, query, "finished_at", query.columns)
    )


async def scan_events(database: Database, query: Query) -> Scan:
    """Events, each id once: of several rows the earliest."""
    wanted = select(EVENTS, query.columns).names
    columns = tuple(dict.fromkeys((*wanted, "id")))
    table = await _read(database, "omniq_events", EVENTS, query, "at", columns)
    return Scan(one_of_each(table, "id").select(wanted))


async def _read(
    database: Database,
    source: str,
    schema: pa.Schema,
    query: Query,
    time_column: str,
    columns: tuple[str, ...] | None,
) -> pa.Table:
    conditions, parameters = ["1 = 1"], list[object]()
    # Readers compare microseconds: a float that rounds to the bound must not be left out.
    if query.since is not None:
        conditions.append(f"{time_column} >= ?")
        parameters.append(query.since - 1e-6)
    if query.until is not None:
        conditions.append(f"{time_column} < ?")
        parameters.append(query.until + 1e-6)
    for name, accepted in query.equals.items():
        if schema.field(name).type == pa.string():
            marks = ", ".join("?" * len(accepted)) or "NULL"
            conditions.append(f"{name} IN ({marks})")
            parameters += accepted
    wanted = select(schema, columns)
    statement = f"SELECT {', '.join(wanted.names)} FROM {source} WHERE {' AND '.join(conditions)}"
    types = [(field.name, _SQL_TYPES.get(field.type, "TEXT")) for field in wanted]
    raw = await database.table(statement, parameters, types)
    read = [_convert(raw.column(field.name), field.type) for field in wanted]
    return pa.Table.from_arrays(read, schema=wanted)


def _convert(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    if type == TIME:
        # As `tables.microseconds` does it, to the last digit.
        microseconds = pc.round(pc.multiply(column, 1e6), round_mode="half_to_even")
        return microseconds.cast(pa.int64()).cast(TIME)
    if type == _TEXTS:
        encoded = column.dictionary_encode().combine_chunks()
        lists = [msgspec.json.decode(text) for text in encoded.dictionary.to_pylist()]
        return pa.chunked_array([pa.array(lists, type=_TEXTS).take(encoded.indices)])
    return column.cast(type)
