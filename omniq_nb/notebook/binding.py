"""Variables of the notebook in SQL: bound as DuckDB's parameters, never pasted as text.

``{name}`` and ``:name`` stand for a value, as DuckDB's own ``$name`` does. DuckDB's tokens tell
them from what looks like them: strings, comments, casts (``x::int``), structs (``{'a': 1}``),
slices (``x[1:n]``), aliases (``a:b``).

Not here: the magics (`omniq_nb.notebook.magics`).
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import duckdb

from omniq_nb.errors import ConfigError, QueryError

_BRACES = re.compile(r"\{\s*([^\W\d]\w*)\s*\}")
_MARKED = re.compile(r"[:$]([^\W\d]\w*)")
_NOT_BEFORE = re.compile(r"[\w\"')\]}\[:$]")
"""What a parameter cannot follow directly: there, a colon is a slice, a cast or an alias."""

_BINDABLE = (
    *(type(None), bool, int, float, str, bytes, bytearray, Decimal, UUID),
    *(date, time, timedelta, list, tuple, dict),
)


class _Mark(NamedTuple):
    """A place in the query where a value belongs."""

    start: int
    end: int
    name: str


def bind(query: str, value_of: Callable[[str], object]) -> tuple[str, dict[str, object]]:
    """A query with DuckDB's parameters, and their values.

    Parameters
    ----------
    query : str
        With ``{name}`` and ``:name`` where values belong.
    value_of : callable
        Gives a variable's value, or raises LookupError.

    Raises
    ------
    QueryError
        There is no such variable.
    ConfigError
        Its value is none that SQL knows.

    Examples
    --------
    >>> bind("select :a + {b}, ':a', x::int -- :a", {"a": 1, "b": 2}.__getitem__)
    ("select $a + $b, ':a', x::int -- :a", {'a': 1, 'b': 2})
    """
    pieces, end = [], 0
    parameters: dict[str, object] = {}
    known: dict[str, str] = {}
    for mark in _marks(query):
        if mark.name not in known:
            parameter = mark.name
            while parameter.casefold() in map(str.casefold, parameters):
                parameter += "_"  # to DuckDB, which does not mind case, it would be the other one
            known[mark.name] = parameter
            parameters[parameter] = _value(query[mark.start : mark.end], mark.name, value_of)
        pieces += [query[end : mark.start], "$", known[mark.name]]
        end = mark.end
    return "".join([*pieces, query[end:]]), parameters


def bare(query: str) -> str:
    """The query without the semicolons, comments and blanks behind it."""
    for start, end in reversed(list(_tokens(query))):
        if query[start:end].rstrip() != ";" and not query.startswith(("--", "/*"), start):
            return query[:end].rstrip()
    return query


def _marks(query: str) -> Iterator[_Mark]:
    for start, _ in _tokens(query):
        sign = query[start]
        if sign == "{":
            found = _BRACES.match(query, start)
        elif sign in ":$" and not (start and _NOT_BEFORE.match(query[start - 1])):
            found = _MARKED.match(query, start)
        else:
            continue
        if found:
            yield _Mark(*found.span(), found[1])


def _tokens(query: str) -> Iterator[tuple[int, int]]:
    """Where DuckDB's tokens start, and where the next one does, in characters."""
    text = query.encode("utf-8", "surrogatepass")
    starts = [offset for offset, _ in duckdb.tokenize(query)]
    position = consumed = 0
    bounds = []
    for offset in [*starts, len(text)]:
        position += len(text[consumed:offset].decode("utf-8", "surrogatepass"))
        consumed = offset
        bounds.append(position)
    yield from pairwise(bounds)


def _value(mark: str, name: str, value_of: Callable[[str], object]) -> object:
    try:
        value = value_of(name)
    except LookupError:
        raise QueryError(
            f"{mark} stands for a variable of the notebook, and there is none called {name!r}: "
            f"run the cell that defines it first"
        ) from None
    if getattr(value, "ndim", None) is not None and hasattr(value, "tolist"):
        value = value.tolist()  # of numpy and pandas, which DuckDB does not know
    if isinstance(value, set | frozenset | range):
        value = list(value)
    if not isinstance(value, _BINDABLE):
        allowed = "None, a number, a text, bytes, a time, or a list or dict of these"
        raise ConfigError(mark, type(value).__qualname__, allowed)
    return value
