"""The rows of a query's result as they are looked at: filtered, sorted, one page at a time.

The result stays one Arrow table. Filtering and sorting give the numbers of its rows, in order,
so that a page of a million rows costs no more than a page.

Not here: how a page is drawn (`static/grid.js`).
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from omniq_nb.errors import ConfigError
from omniq_nb.explore.catalogue import Connections, aside
from omniq_nb.explore.session import locked_connection
from omniq_nb.explore.views import identifier

TEXT = 300
"""Characters of a cell that are shown."""

ROW = "omniq row"
"""The name of the column with the rows' numbers, while they are sorted."""


class Rows:
    """A query's result, and which of its rows are looked at in which order. It never changes.

    Parameters
    ----------
    query : str
        What it is the result of.
    table : Arrow table
        The result.

    Attributes
    ----------
    condition : str
        Which rows are looked at, in SQL; empty: all.
    order : tuple of str and bool
        The column by which they are sorted, empty for none, and whether it descends.
    """

    def __init__(self, query: str, table: pa.Table) -> None:
        self.query = query.strip().rstrip(";").strip()
        self.table = table
        self.condition = ""
        self.order = ("", False)
        self._numbers: pa.ChunkedArray | None = None  # None: all, as they are

    @property
    def total(self) -> int:
        """How many rows are looked at."""
        return self.table.num_rows if self._numbers is None else len(self._numbers)

    def columns(self) -> list[list[object]]:
        """Name and type of each column, and whether it holds numbers."""
        return [[field.name, str(field.type), is_number(field.type)] for field in self.table.schema]

    def likely(self) -> tuple[str | None, str | None]:
        """The columns that are most worth a plot: one of measured numbers, and one beside it.

        Of `results` these are `duration` and `created_at`.
        """

        def first(*kinds: Callable[[pa.DataType], bool]) -> str | None:
            found = [f.name for kind in kinds for f in self.table.schema if kind(f.type)]
            return next(iter([*found, *self.table.column_names]), None)

        return first(pa.types.is_floating, is_number), first(pa.types.is_timestamp, is_number)

    def page(self, first: int, count: int) -> list[list[str | None]]:
        """The texts of so many rows, from the first one on."""
        if self._numbers is None:
            part = self.table.slice(first, count)
        else:
            # One slice for each row: taking them would copy long columns of texts first.
            numbers = self._numbers.slice(first, count).to_pylist()
            slices = [self.table.slice(number, 1) for number in numbers]
            part = pa.concat_tables(slices) if slices else self.table.slice(0, 0)
        columns = [[text_of(value) for value in column.to_pylist()] for column in part.columns]
        return [list(row) for row in zip(*columns, strict=True)]

    async def arranged(self, condition: str, order: tuple[str, bool]) -> Self:
        """The rows of the result that satisfy a condition, in this order.

        Raises
        ------
        QueryError
            The condition is wrong.
        ConfigError
            There is no such column.
        """
        if order[0] and order[0] not in self.table.column_names:
            raise ConfigError("order", order[0], ", ".join(self.table.column_names))
        made = type(self)(self.query, self.table)
        made.condition, made.order = condition, order
        if condition or order[0]:
            made._numbers = (await made._select([ROW])).column(ROW)
        return made

    async def select(self, *columns: str) -> pa.Table:
        """These columns of the rows that are looked at, in their order; all unless given."""
        names = list(columns) or self.table.column_names
        return self.table.select(names) if self._numbers is None else await self._select(names)

    def code(self) -> str:
        """Python that gives the same rows."""
        query = self.query
        if self.condition or self.order[0]:
            query = f"SELECT * FROM (\n{query}\n)"
            if self.condition:
                query += f"\nWHERE {self.condition}"
            if self.order[0]:
                query += f"\nORDER BY {_order(self.order)}"
        if "\n" in query or '"' in query:
            # In three quotes, neither these nor a backslash may stand as they are.
            query = query.replace("\\", "\\\\").replace('"""', '""\\"')
            return f'frame = oq.sql("""\n{query}\n""")\n'
        return f"frame = oq.sql({query!r})\n"

    async def export(self, path: str) -> Path:
        """Write the rows that are looked at to a file, as CSV or as Parquet by its name.

        Raises
        ------
        ConfigError
            The name says neither, or the file cannot be written.
        """
        file = Path(path).expanduser().absolute()
        if file.suffix.lower() not in (".csv", ".parquet"):
            raise ConfigError("file", path, "a name that ends in .csv or .parquet")
        try:
            await asyncio.to_thread(_write, await self.select(), file)
        except OSError as error:
            raise ConfigError("file", path, f"a place that can be written to ({error})") from None
        return file

    async def _select(self, columns: Sequence[str]) -> pa.Table:
        return await aside(lambda open: self._selected(columns, open))

    def _selected(self, columns: Sequence[str], open: Connections) -> pa.Table:
        numbers = pa.array(np.arange(self.table.num_rows))
        connection = locked_connection([])
        open.append(connection)
        rows = connection.from_arrow(self.table.append_column(ROW, numbers))
        if self.condition:
            rows = rows.filter(self.condition)
        # Equal ones keep the order that they had.
        order = [_order(self.order)] if self.order[0] else []
        rows = rows.order(", ".join([*order, identifier(ROW)]))
        return rows.project(", ".join(map(identifier, columns))).to_arrow_table()


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def text_of(value: Any) -> str | None:
    """A cell as text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    text = str(value)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _order(order: tuple[str, bool]) -> str:
    name, descending = order
    return f"{identifier(name)} {'DESC' if descending else 'ASC'} NULLS LAST"


def _write(table: pa.Table, file: Path) -> None:
    if file.suffix.lower() == ".parquet":
        pa.parquet.write_table(table, file)
    else:
        pa.csv.write_csv(_flat(table), file)


def _flat(table: pa.Table) -> pa.Table:
    """A table that CSV can hold: what is nested is written as text."""
    columns = [
        pa.array([None if value is None else str(value) for value in column.to_pylist()])
        if pa.types.is_nested(column.type)
        else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)
