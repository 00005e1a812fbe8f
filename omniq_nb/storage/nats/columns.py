"""Rows as bytes, column by column: small, quick to write, and quick to turn into Arrow.

A batch names its columns, so a later version may add some. A column all of whose values are
equal holds that value once.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from omniq_nb.errors import StoreError
from omniq_nb.models.event import Event
from omniq_nb.models.result import Result

if TYPE_CHECKING:
    import pyarrow as pa

ENOUGH = 50_000
"""Rows that become one chunk of an Arrow table."""


class Rows(msgspec.Struct, tag="rows", array_like=True, frozen=True):
    """Rows, by column."""

    count: int
    names: list[str]
    columns: list[list[object]]

    def column(self, name: str) -> list[object]:
        """Give all values of a column; nulls if it has none of that name."""
        if name not in self.names:
            return [None] * self.count
        values = self.columns[self.names.index(name)]
        return values if len(values) == self.count else values * self.count

    def some(self, names: Sequence[str]) -> "Rows":
        """Give some of the columns."""
        return Rows(self.count, list(names), [self.columns[self.names.index(n)] for n in names])

    def replaced(self, **columns: list[object]) -> "Rows":
        """Give the same with these columns instead, or in addition."""
        given = dict(zip(self.names, self.columns, strict=True)) | columns
        return Rows(self.count, list(given), [_short(values) for values in given.values()])

    def only(self, rows: Sequence[int]) -> "Rows":
        """Give some of the rows."""
        columns = [self.column(name) for name in self.names]
        kept = [[values[row] for row in rows] for values in columns]
        return Rows(len(rows), self.names, [_short(values) for values in kept])


class Gone(msgspec.Struct, tag="gone", array_like=True, frozen=True):
    """Frames, by first and last sequence number, that do not count any more, though still there.

    `before` is the number of the newest message of this kind so far, which is deleted after this
    one was stored; 0: there was none.
    """

    frames: list[tuple[int, int]]
    before: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Rows | Gone).decode


def pack(content: Rows | Gone) -> bytes:
    """Make bytes of it."""
    return _encode(content)


def unpack(data: bytes) -> Rows | Gone:
    """Make it of bytes."""
    try:
        content: Rows | Gone = _decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(
            "A stream of results or events holds a message that omniq_nb did not write: "
            f"{error}. Delete it, and give omniq_nb's subjects to nobody else."
        ) from error
    return content


def rows_of(structs: Sequence[Event] | Sequence[Result], names: Sequence[str]) -> Rows:
    """Give these attributes of Structs."""
    columns = [_short(list(map(attrgetter(name), structs))) for name in names]
    return Rows(len(structs), list(names), columns)


def _short(values: list[object]) -> list[object]:
    return values[:1] if len(values) > 1 and values.count(values[0]) == len(values) else values


class ArrowBuilder:
    """Gathers rows into an Arrow table.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns wanted.
    """

    def __init__(self, schema: "pa.Schema") -> None:
        self._schema = schema
        self._columns: list[list[object]] = [[] for _ in schema]
        self._count = 0
        self._chunks: list[pa.RecordBatch] = []

    def add(self, rows: Rows) -> None:
        """Add rows."""
        for name, column in zip(self._schema.names, self._columns, strict=True):
            column += rows.column(name)
        self._count += rows.count
        if self._count >= ENOUGH:
            self._close_chunk()

    def table(self) -> "pa.Table":
        """Give all that was added."""
        import pyarrow as pa

        self._close_chunk()
        return pa.Table.from_batches(self._chunks, self._schema)

    def _close_chunk(self) -> None:
        import pyarrow as pa

        arrays = [
            _array(column, field.type)
            for field, column in zip(self._schema, self._columns, strict=True)
        ]
        self._chunks.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        for column in self._columns:
            column.clear()
        self._count = 0


def _array(values: Iterable[object], type: "pa.DataType") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    from omniq_nb.storage.tables import TIME

    if type != TIME:
        return pa.array(values, type)
    # As `tables.microseconds` does it, for all at once.
    seconds = pa.array(values, pa.float64())
    return pc.round(pc.multiply(seconds, 1_000_000.0)).cast(pa.int64()).cast(TIME)
