"""Whether a query may run, and what it needs: views, and columns of them.

DuckDB itself parses the query. A second, empty database with the same views plans it, so that
stores are asked for no more than the query reads; that database has no data and no access to
anything.

Not here: running it (`omniq_nb.explore.session`).
"""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import duckdb

from omniq_nb.errors import QueryError
from omniq_nb.explore.session import failure, locked_connection
from omniq_nb.explore.views import VIEWS

Parameters: TypeAlias = "Sequence[object] | dict[str, object] | None"
"""Values for ``?``, or for ``$name``."""

Needs: TypeAlias = dict[str, tuple[str, ...]]
"""View name to the documented columns of it that are read."""

ALLOWED = (
    "a query is one statement that reads: SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW, "
    "PIVOT, UNPIVOT or EXPLAIN"
)

READING = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE")
"""Kinds of queries within a query. Not among them: WITH x AS (COPY ... TO ...), which counts as
a SELECT and would write even where only reading was meant."""

FORBIDDEN = frozenset(
    {
        # They run text as SQL: nobody sees what it reads.
        *("query", "query_table", "json_execute_serialized_sql"),
        # They take addresses in memory, or objects of Python.
        *("arrow_scan", "arrow_scan_dumb", "python_arrow_scan", "pandas_scan"),
        "python_map_function",
        # They change how the database works, and may write files.
        *("enable_logging", "disable_logging", "enable_profiling", "disable_profiling"),
        # They call functions by name.
        *("create_external_resource", "destroy_external_resource"),
        *("register_external_resource", "register_external_resource_type"),
    }
)
"""Functions that no query may call."""

EXPLAIN = re.compile(
    r"(\s|--[^\n]*\n|/\*.*?\*/)*explain\s+(analyze\b|\(\s*(analyze|format)\b[^)]*\))?",
    re.IGNORECASE | re.DOTALL,
)
"""What stands before the query that is explained, which is then admitted by itself."""

WORDS = re.compile(rf"\b(copy|insert|update|delete|merge|{'|'.join(FORBIDDEN)})\b", re.IGNORECASE)


def plan(query: str, parameters: Parameters) -> Needs:
    """Say what a query reads.

    Raises
    ------
    QueryError
        It is wrong, or more than one statement that reads.
    """
    connection = _empty_database().cursor()
    try:
        query, named = _admitted(connection, query)
        return _needs(connection, query, parameters, named)
    except duckdb.Error as error:
        raise failure(error) from None
    finally:
        connection.close()


def _admitted(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[str, frozenset[str]]:
    """Refuse what does more than read. Give what is to be planned and the views that it names."""
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise QueryError(f"{len(statements)} statements were given: {ALLOWED}")
    kind = statements[0].type.name
    if kind == "EXPLAIN":
        explain = EXPLAIN.match(query)
        query = query[explain.end() :] if explain else ""
        statements = connection.extract_statements(query)
        kind = statements[0].type.name if len(statements) == 1 else "EXPLAIN"
    if kind == "MULTI":
        # PIVOT without IN is several statements within, which DuckDB does not show us.
        if word := WORDS.search(query):
            raise QueryError(
                f"{word[0]!r} may not occur in a PIVOT without IN: name the values to make columns "
                "of, PIVOT ... ON name IN (...)"
            )
        return query, frozenset(VIEWS)
    if kind != "SELECT":
        raise QueryError(f"{kind} is not allowed: {ALLOWED}")
    return query, _views_named(connection, query)


def _views_named(connection: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    found = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    if tree["error"]:
        raise QueryError(f"{tree.get('error_message', 'this query cannot be checked')}: {ALLOWED}")
    names = set()
    for node in _nodes(tree["statements"]):
        kind, function = node.get("type"), node.get("function_name")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in READING:
            raise QueryError(f"{kind.partition('_')[0]} is not allowed: {ALLOWED}")
        if isinstance(function, str) and function.lower() in FORBIDDEN:
            raise QueryError(f"the function {function} is not allowed: {ALLOWED} of the views")
        names.add(str(node.get("table_name")).lower())
    return frozenset(names & VIEWS.keys())


def _needs(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Parameters, named: frozenset[str]
) -> Needs:
    """Find the columns that DuckDB would read."""
    try:
        planned = connection.execute("EXPLAIN (FORMAT JSON) " + query, parameters).fetchall()
    except duckdb.Error:
        if not any(VIEWS[name].typed for name in named):
            # The views are empty here. It fails likewise, in words about the query as it was given.
            connection.execute(query, parameters)
            raise
        # It may use an argument's column or a number in `value`: known once the rows are read.
        return {name: VIEWS[name].names for name in named}
    # Named but not read, as in DESCRIBE: only what gives columns their types.
    needs = {name: VIEWS[name].typed for name in named}
    scanned: dict[str, set[str]] = {}
    for node in _nodes(json.loads(planned[0][-1])):
        name, read = str(node.get("Table")).rpartition(".")[2], node.get("Projections")
        if name in VIEWS:
            columns = (
                read if isinstance(read, list) else VIEWS[name].names if read is None else [read]
            )
            scanned.setdefault(name, set()).update(map(str, columns))
    for name, columns_read in scanned.items():
        needs[name] = tuple(column for column in VIEWS[name].names if column in columns_read)
    return needs


def _nodes(tree: object) -> Iterator[dict[str, object]]:
    """Every object within a tree of JSON."""
    trees = [tree]
    while trees:
        tree = trees.pop()
        if isinstance(tree, dict):
            yield tree
            trees += tree.values()
        elif isinstance(tree, list):
            trees += tree


@functools.cache
def _empty_database() -> duckdb.DuckDBPyConnection:
    with duckdb.connect() as connection:
        optimizers = [name for (name,) in connection.execute("FROM duckdb_optimizers()").fetchall()]
    optimizers.remove("unused_columns")  # the only one that is wanted
    connection = locked_connection((), {"disabled_optimizers": ",".join(optimizers)})
    for view in VIEWS.values():
        columns = (f'"{c.name}" {c.type.replace("TYPED", "JSON")}' for c in view.columns)
        connection.execute(f"CREATE TABLE {view.name} ({', '.join(columns)})")
    return connection
