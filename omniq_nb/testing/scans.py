"""Reading a scan the way a user's query does: through DuckDB, Arrow rows and files together."""

from functools import cache
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa

from omniq_nb.storage.base import Query, Scan
from omniq_nb.storage.tables import TIME, microseconds, select

Row = dict[str, Any]


def rows(scan: Scan, schema: pa.Schema, time_column: str, query: Query | None = None) -> list[Row]:
    """Read what a scan found, and filter again, as every reader does.

    Parameters
    ----------
    scan : Scan
        What the store gave for `query`.
    schema : pyarrow.Schema
        Of the component.
    time_column : str
        What `since` and `until` speak of.
    query : Query, optional
        Must ask for the columns by which it filters.

    Returns
    -------
    list of dict
        By column, in no certain order, with the types of the schema.
    """
    query = query or Query()
    wanted = select(schema, query.columns)
    for field in wanted:
        assert field.name in scan.table.column_names, f"the table lacks {field.name}"
        given = scan.table.schema.field(field.name).type
        assert given == field.type, f"{field.name} is {given}, not {field.type}"
    names = ", ".join(f'"{name}"' for name in wanted.names)
    conditions, values = _conditions(query, time_column)
    with _database().cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("fresh", scan.table)
        source = f"SELECT {names} FROM fresh"
        if scan.files:
            source += (
                f" UNION ALL SELECT {names} FROM"
                " read_parquet($files, union_by_name = true, hive_partitioning = false)"
            )
            values["files"] = list(scan.files)
        sql = f"SELECT * FROM ({source}) WHERE {' AND '.join(conditions)}"
        found = connection.sql(sql, params=values).to_arrow_table()
    for field in wanted:
        given = found.schema.field(field.name).type
        assert given == field.type, f"{field.name} reads as {given}, not {field.type}"
    listed: list[Row] = found.to_pylist()
    return listed


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Keep one empty database: to make one takes longer than most scans."""
    return duckdb.connect()


def _conditions(query: Query, time_column: str) -> tuple[list[str], dict[str, object]]:
    conditions, values = ["true"], dict[str, object]()
    if query.since is not None:
        conditions.append(f'epoch_us("{time_column}") >= $since')
        values["since"] = microseconds(query.since)
    if query.until is not None:
        conditions.append(f'epoch_us("{time_column}") < $until')
        values["until"] = microseconds(query.until)
    for number, (column, accepted) in enumerate(query.equals.items()):
        conditions.append(f'list_contains($accepted{number}, "{column}")')
        values[f"accepted{number}"] = list(accepted)
    return conditions, values


def by(column: str, found: list[Row]) -> list[Row]:
    """Sort rows, to compare them."""
    return sorted(found, key=lambda row: row[column])


def column_sets(schema: pa.Schema, needed: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Give telling choices of columns: each alone, neighbours in reverse, and times only.

    Each choice has the `needed` ones too, without which the rows could not be told apart.
    """
    names = schema.names
    chosen: list[tuple[str, ...]] = [(name,) for name in names]
    chosen += [(second, first) for first, second in pairwise(names)]
    chosen += [tuple(field.name for field in schema if field.type == TIME)]
    return [tuple(dict.fromkeys((*choice, *needed))) for choice in chosen]
