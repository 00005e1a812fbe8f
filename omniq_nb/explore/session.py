"""The DuckDB connection in which one query runs: locked, thrown away afterwards.

A fresh in-memory database for each query costs about 15 ms and shares nothing: no setting, no
view and no half-read result of another query. It may open the files of the configured stores,
and nothing else; settings are locked; the query's transaction is read-only.

Not here: which statements are admitted (`omniq_nb.explore.statements`).
"""

import contextlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from omniq_nb.errors import OmniQError, QueryError, StoreError
from omniq_nb.explore.structure import (
    Structure,
    Structures,
    joined,
    read_parquet,
    structure_of,
    typed,
)
from omniq_nb.explore.views import JSON_OR_RAW, VIEWS, View, identifier, literal
from omniq_nb.models.task import LIVE
from omniq_nb.storage.base import Scan
from omniq_nb.storage.tables import microseconds

if TYPE_CHECKING:
    from omniq_nb.explore.catalogue import Source
    from omniq_nb.explore.statements import Parameters

STORE = "store"
"""The schema of the stores' own rows. `SHOW TABLES` shows the views alone."""

DATE_TRUNC = """
CREATE MACRO date_trunc(part VARCHAR, moment TIMESTAMPTZ) AS make_timestamptz(
    epoch_us(system.main.date_trunc(part, make_timestamp(epoch_us(moment))))
),
(part VARCHAR, moment TIMESTAMP) AS system.main.date_trunc(part, moment),
(part VARCHAR, moment DATE) AS system.main.date_trunc(part, moment),
(part, moment) AS system.main.date_trunc(part, moment)
"""
"""The same answers as ever, the time zone being UTC, but six times faster without ICU."""

HUGEINT = pa.decimal128(38, 0)
"""How DuckDB hands over the sum of integers."""


class Session:
    """The views in one connection.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `locked_connection`, given the scans' files.
    sources : sequence of Source
        What the views are made of.
    unsettled : Scan or None
        The tasks that did not succeed: their ids, tokens and states. Decides which results count.
    structures : Structures
        What is known of the files already.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        sources: Sequence["Source"],
        unsettled: Scan | None,
        structures: Structures,
    ) -> None:
        self._connection = connection
        self._structures = structures
        self.arguments: dict[str, tuple[str, ...]] = {}
        """View name to the names of the arguments in it."""
        connection.execute(f"CREATE SCHEMA {STORE}")
        queue = self._rows("queue", unsettled) if unsettled else None
        for source in sources:
            rows = self._narrowed(self._rows(source.view.name, source.scan), source)
            if source.view.name == "results" and queue:
                rows = self._settled(rows, queue)
            self._present(source, rows)
        for view in VIEWS.values():
            if view.name not in self.arguments:  # not read, but it exists: SHOW TABLES
                connection.execute(f"CREATE VIEW {view.name} AS {_nothing(view)}")

    def query(self, query: str, parameters: "Parameters" = None) -> pa.Table:
        """Run an admitted query."""
        self._connection.execute("BEGIN TRANSACTION READ ONLY")
        return _plain(self._connection.sql(query, params=parameters).to_arrow_table())

    # ---------------------------------------------------------------- inside

    def _rows(self, name: str, scan: Scan) -> str:
        """Make a store's rows known, in place. Gives the relation's SQL."""
        self._connection.execute(f"USE {STORE}")
        self._connection.from_arrow(scan.table).create_view(name)
        self._connection.execute("USE main")
        if not scan.files:
            return _stored(name)
        # By name: a file may lack a column that was added later. As text, not as a view: DuckDB
        # reads every footer again for each view over the files.
        return f"(FROM {_stored(name)} UNION ALL BY NAME FROM {read_parquet(scan.files)})"

    def _settled(self, results: str, queue: str) -> str:
        """Leave out the results of attempts that their queue did not accept."""
        live = ", ".join(map(literal, sorted(LIVE)))
        return (
            f"(SELECT result.* FROM {results} AS result "
            f"LEFT JOIN {queue} AS task ON task.id = result.task_id WHERE task.id IS NULL "
            f"OR (task.state NOT IN ({live}) AND task.token = result.token))"
        )

    def _narrowed(self, rows: str, source: "Source") -> str:
        """Keep the rows that were asked for: a store may give more."""
        query, time = source.query, identifier(source.view.time_source)
        conditions = [
            f"{identifier(name)} IN ({', '.join(map(literal, values))})"
            for name, values in query.equals.items()
        ]
        if query.since is not None:
            conditions.append(f"{time} >= make_timestamptz({microseconds(query.since)})")
        if query.until is not None:
            conditions.append(f"{time} < make_timestamptz({microseconds(query.until)})")
        return f"(FROM {rows} WHERE {' AND '.join(conditions)})" if conditions else rows

    def _present(self, source: "Source", rows: str) -> None:
        """Make the documented view of rows of a store."""
        view = source.view
        expressions = []
        arguments: tuple[str, ...] = ()
        for column in view.columns:
            if column.name not in source.columns:
                sql = column.null
            elif column.type == "TYPED":
                structure = self._structure(source, rows, column.name)
                sql = _from_json(column.name, structure)
                if column.name == "arguments" and isinstance(structure, dict):
                    arguments = tuple(structure)
            else:
                sql = column.expression
            expressions.append(f'{sql} AS "{column.name}"')
        self.arguments[view.name] = arguments
        documented = {column.name for column in view.columns}
        own = [
            f"struct_extract(arguments, {literal(name)}) AS {identifier(name)}"
            for name in arguments
            if name.casefold() not in documented
        ]
        self._connection.execute(
            f"CREATE VIEW {view.name} AS SELECT {', '.join(['*', *own])} "
            f"FROM (SELECT {', '.join(expressions)} FROM {rows})"
        )

    def _structure(self, source: "Source", rows: str, column: str) -> Structure:
        """Find the structure of a column. `rows` are those that the view shows."""
        query, files = source.query, source.scan.files
        narrowed = query.equals or query.since is not None or query.until is not None
        try:
            if not narrowed:
                found = [self._structures.of(self._connection, files, column)]
                if source.scan.table.num_rows:
                    memory = structure_of(self._connection, _stored(source.view.name), column)
                    found += memory.values()
            # Rows that do not show must not decide either: a zombie's value may be of any kind.
            if narrowed or (source.view.name == "results" and '"JSON"' in json.dumps(found)):
                found = [*structure_of(self._connection, rows, column).values()]
            return typed(joined(found))
        except RecursionError:  # a value that is nested thousands deep
            return "JSON"


def locked_connection(
    files: Sequence[str], settings: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyConnection:
    """Give an empty database in memory that can open these files and nothing else."""
    spill = Path(tempfile.gettempdir()) / f"omniq-{uuid.uuid4().hex}"  # made only when needed
    connection = duckdb.connect(
        config={
            "allow_community_extensions": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "temp_directory": str(spill),
        }
    )
    connection.execute(DATE_TRUNC)
    for name, value in {
        "TimeZone": "UTC",
        "parquet_metadata_cache": "true",
        **(settings or {}),
    }.items():
        connection.execute(f"SET {name} = {literal(value)}")
    if files:
        connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def failure(error: duckdb.Error) -> OmniQError:
    """Put an error of DuckDB's as one of ours."""
    if isinstance(error, duckdb.IOException):
        return StoreError(f"a file of a store could not be read: {error}")
    return QueryError(str(error))


def _stored(name: str) -> str:
    return f"{STORE}.{identifier(name)}"


def _nothing(view: View) -> str:
    columns = (f"{column.null} AS {identifier(column.name)}" for column in view.columns)
    return f"SELECT {', '.join(columns)} WHERE false"


def _from_json(column: str, structure: Structure) -> str:
    if structure == "JSON":
        return JSON_OR_RAW.format(f"nullif({column}, 'null')")
    return f"from_json({column}, {literal(json.dumps(structure))})"


def _plain(table: pa.Table) -> pa.Table:
    """Give columns different names, and sums of integers as integers where they fit."""
    names: list[str] = []
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type == HUGEINT:
            with contextlib.suppress(pa.ArrowInvalid):
                column = column.cast(pa.int64())
        number = 0
        unique = name
        while unique in names:
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
        columns.append(column)
    return pa.Table.from_arrays(columns, names=names)
