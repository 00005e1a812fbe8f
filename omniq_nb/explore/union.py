"""Many tables as one, by DuckDB: columns of the same name become one column.

Not here: where the tables come from (`omniq_nb.core.handle`).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from omniq_nb.errors import QueryError
from omniq_nb.explore.session import locked_connection
from omniq_nb.explore.structure import read_parquet


def union_of(tables: Sequence[object]) -> pa.Table:
    """Give all rows of all tables, in this order.

    Parameters
    ----------
    tables : sequence of pyarrow.Table or bytes-like
        Tables, or the Parquet files with them.

    Raises
    ------
    QueryError
        A column has types that do not go together.
    """
    if not tables:
        return pa.table({})
    with tempfile.TemporaryDirectory(prefix="omniq-frames-") as folder:
        files = []
        for number, table in enumerate(tables):
            file = Path(folder, f"{number:08}.parquet")
            if isinstance(table, pa.Table):
                pq.write_table(table, file)
            else:
                file.write_bytes(table)  # type: ignore[arg-type] # bytes, or a view of them
            files.append(str(file))
        connection = locked_connection(files)
        try:
            return connection.sql(f"FROM {read_parquet(files)}").to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(f"these data frames do not make one: {error}") from None
        finally:
            connection.close()
