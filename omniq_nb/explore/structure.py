"""Which types JSON text has, over all rows of a column.

DuckDB's `json_group_structure` does the work. It reads every row: a sample would turn values
that it did not see into NULL, without a word. What is added here: numbers that fit no 64-bit
integer, which DuckDB silently rounds to DOUBLE; joining what was found in several files; and
which structures become JSON because DuckDB's structs cannot hold them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from omniq_nb.explore.views import literal

if TYPE_CHECKING:
    import duckdb

Structure: TypeAlias = "str | list[Structure] | dict[str, Structure]"
"""As DuckDB says it: ``"DOUBLE"``, ``["DOUBLE"]``, ``{"lr": "DOUBLE"}``, ``"NULL"``, ``"JSON"``."""

MOST_NAMES = 100
"""An object with more names, all rows together, stays JSON."""

MOST_DEPTH = 20
"""So does what is nested deeper."""

SAMPLE_ROWS, SAMPLE_LEAVES = 1000, 2000
"""If so few rows have so many different names, there are keys where values should be: the
structure of a million rows would have a million names. The column stays JSON."""

INTEGERS = ("UBIGINT", "BIGINT", "HUGEINT")

PERHAPS_HUGE = (
    # The first is there for speed: it is false for nearly all rows.
    "regexp_matches(text, '[0-9]{19}') AND regexp_matches(text, '[0-9]{20}|9[2-9][0-9]{17}')"
)
"""True of text with an integer beyond 64 bits, and of some other text."""


class Structures:
    """What is known of the JSON in files, which never change: reading it costs about 1 us a row."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Structure] = {}

    def of(
        self, connection: "duckdb.DuckDBPyConnection", files: Sequence[str], column: str
    ) -> Structure:
        """Find the structure of a column over all of these files."""
        known = {file: self._known.get((file, column)) for file in files}
        new = [file for file, structure in known.items() if structure is None]
        if new:
            rows = read_parquet(new, "union_by_name = true, filename = true")
            found = structure_of(connection, rows, column, "filename")
            if len(self._known) > 100_000:  # of files that were compacted away, mostly
                self._known.clear()
            for file in new:
                self._known[file, column] = known[file] = found.get(file, "NULL")
        return joined(structure for structure in known.values() if structure is not None)


def read_parquet(files: Sequence[str], options: str = "union_by_name = true") -> str:
    """Say in SQL: these files."""
    return f"read_parquet([{', '.join(map(literal, files))}], {options})"


def structure_of(
    connection: "duckdb.DuckDBPyConnection", source: str, column: str, group: str = "''"
) -> dict[str, Structure]:
    """Find the structure of a column of JSON text, for each value of `group`.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where `source` is known.
    source, column, group : str
        SQL: a relation, the column, an expression by which rows are put into groups.
    """
    import duckdb

    # Every function has calls without arguments: that says nothing of their types.
    said = f"{column} IS NOT NULL AND {column} <> '{{}}'" if column == "arguments" else "true"
    rows = f"SELECT {column} AS text, {group} AS part FROM {source} WHERE {said}"
    found = "json_group_structure(text::JSON)"
    try:
        sample = connection.execute(f"SELECT {found} FROM ({rows} LIMIT {SAMPLE_ROWS})").fetchone()
        if sample and _leaves(_parsed(sample[0])) > SAMPLE_LEAVES:
            found = "NULL"
        structures = {
            part: _parsed(text) if found != "NULL" else "JSON"
            for part, text in connection.execute(
                f"SELECT part, {found} FROM ({rows}) GROUP BY part"
            ).fetchall()
        }
    except duckdb.ConversionException:  # not JSON, as DuckDB sees it: half an emoji
        parts = connection.execute(f"SELECT DISTINCT part FROM ({rows})").fetchall()
        return {part: "JSON" for (part,) in parts}
    if all(structure == "JSON" for structure in structures.values()):
        return structures
    for part, text in connection.execute(
        f"SELECT DISTINCT part, text FROM ({rows}) WHERE {PERHAPS_HUGE}"
    ).fetchall():
        structures[part] = joined((structures[part], _exact(json.loads(text))))
    return structures


def joined(structures: Iterable[Structure]) -> Structure:
    """Give the structure that holds all of these."""
    result: Structure = "NULL"
    for structure in structures:
        result = _join(result, structure)
    return result


def _join(one: Structure, other: Structure) -> Structure:
    if one == other or other == "NULL":
        return one
    if one == "NULL":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _join(one.get(name, "NULL"), other.get(name, "NULL")) for name in one | other}
    if isinstance(one, list) and isinstance(other, list):
        return [_join(one[0], other[0])]
    if one in INTEGERS and other in INTEGERS:
        return "BIGINT"
    numbers = (*INTEGERS, "DOUBLE")
    return "DOUBLE" if one in numbers and other in numbers else "JSON"


def typed(structure: Structure, depth: int = 0) -> Structure:
    """Give the structure with which DuckDB's `from_json` reads every row without loss."""
    if depth > MOST_DEPTH or structure == "NULL":
        return "JSON"
    if structure in INTEGERS:
        return "BIGINT"
    if isinstance(structure, list):
        return [typed(structure[0], depth + 1)]
    if isinstance(structure, dict):
        # DuckDB's structs know neither empty names nor the case of letters.
        odd = any(not name or "\0" in name for name in structure)
        if odd or len({name.casefold() for name in structure}) < len(structure):
            return "JSON"
        if len(structure) > MOST_NAMES:
            return "JSON"
        return {name: typed(child, depth + 1) for name, child in structure.items()}
    return structure


def _parsed(text: str | None) -> Structure:
    structure: Structure = "NULL" if text is None else json.loads(text)
    return structure


def _leaves(structure: Structure) -> int:
    if isinstance(structure, Mapping):
        return sum(map(_leaves, structure.values()))
    return _leaves(structure[0]) if isinstance(structure, list) else 1


def _exact(value: object) -> Structure:
    """Give the structure of one value, integers beyond 64 bits being JSON."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "BOOLEAN"
        case int():
            return "BIGINT" if -(2**63) <= value < 2**63 else "JSON"
        case float():
            return "DOUBLE"
        case str():
            return "VARCHAR"
        case list():
            return [joined(map(_exact, value))]
        case dict():
            return {name: _exact(child) for name, child in value.items()}
        case _:
            raise TypeError(f"not from JSON: {type(value)}")
