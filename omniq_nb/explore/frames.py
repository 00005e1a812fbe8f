"""Tables as the kind of frame that the user wants."""

from typing import TYPE_CHECKING, Any

from omniq_nb.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("pandas", "arrow", "polars")


def to_frame(table: "pa.Table", kind: str = "pandas") -> Any:
    """Give a table as a frame.

    Parameters
    ----------
    table : pyarrow.Table
        What a query gave.
    kind : {"pandas", "arrow", "polars"}
        Which kind of frame. Integers with gaps are pandas' ``Int64``, so that they stay exact.

    Raises
    ------
    ConfigError
        No such kind, or Polars is not installed.
    """
    if kind == "arrow":
        return table
    if kind == "pandas":
        return _pandas(table)
    if kind == "polars":
        try:
            import polars
        except ImportError:
            raise ConfigError(
                "kind", kind, "a kind whose library is installed: pip install polars"
            ) from None
        return polars.from_arrow(table)
    raise ConfigError("kind", kind, ", ".join(KINDS))


def _pandas(table: "pa.Table") -> Any:
    import pandas as pd
    import pyarrow as pa

    frame = table.to_pandas()
    for index, column in enumerate(table.columns):
        if column.type == pa.int64() and column.null_count:
            frame.isetitem(index, column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get))
    return frame
