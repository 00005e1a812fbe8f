"""Data frames and Arrow tables as Parquet, so that stores may keep them as files of their own.

Only where that is exact: what comes back equals what went in, its types and index included.

Not here: frames inside of other values (`plain`), and signing (`codec`).
"""

import sys
from typing import Any

from omniq_nb.codec import plain

KIND = b"omniq_nb"
"""The key of the file's metadata that says which kind of frame it was."""

MARK = b"PAR1"
"""How a Parquet file begins and ends."""


def pack(value: object) -> bytes | None:
    """Give a frame as a Parquet file; None: it is no frame, or Parquet cannot hold it exactly."""
    module = type(value).__module__.partition(".")[0]
    kinds = {"pandas": _pandas, "polars": _polars, "pyarrow": _arrow}
    found = kinds[module](value) if module in kinds else None
    if found is None:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = (found.schema.metadata or {}) | {KIND: module.encode()}
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(found.replace_schema_metadata(metadata), sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        same = _same(value, unpack(data), module)
    except (pa.ArrowException, TypeError, ValueError, KeyError, AttributeError):
        return None
    return data if same else None


def unpack(data: bytes | memoryview) -> object:
    """Give back what `pack` got."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    metadata = dict(table.schema.metadata or {})
    kind = metadata.pop(KIND, b"pyarrow")
    table = table.replace_schema_metadata(metadata or None)
    if kind == b"pandas":
        return table.to_pandas()
    if kind == b"polars":
        import polars as pl

        return pl.from_arrow(table)
    return table


def as_table(value: object) -> Any | None:
    """Give any frame as an Arrow table; None: it is none."""
    module = type(value).__module__.partition(".")[0]
    if module == "pandas" and type(value) is sys.modules["pandas"].DataFrame:
        return sys.modules["pyarrow"].Table.from_pandas(value)
    return {"polars": _polars, "pyarrow": _arrow}.get(module, lambda _: None)(value)


def _pandas(value: Any) -> Any | None:
    import pyarrow as pa

    if type(value) is not sys.modules["pandas"].DataFrame or plain.holds_objects(value):
        return None
    try:
        return pa.Table.from_pandas(value)
    except (pa.ArrowException, TypeError, ValueError, KeyError, AttributeError):
        return None


def _polars(value: Any) -> Any | None:
    pl = sys.modules["polars"]
    if type(value) is not pl.DataFrame or pl.Object in value.dtypes or not value.width:
        return None
    return value.to_arrow()


def _arrow(value: Any) -> Any | None:
    return value if type(value) is sys.modules["pyarrow"].Table and value.num_columns else None


def _same(one: Any, other: Any, module: str) -> bool:
    if module == "pandas":
        return plain.same_frames(one, other)
    if module == "polars":
        return bool(one.schema == other.schema and one.equals(other))
    return bool(one.schema.equals(other.schema, check_metadata=True) and one.equals(other))
