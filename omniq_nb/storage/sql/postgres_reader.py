"""Reads many rows of PostgreSQL straight into Arrow: ADBC does it by COPY, in C, without the GIL.

Its connection is kept: to make one, ADBC reads the whole catalogue of types. It belongs to no
event loop, only to this process.
"""

import threading
from typing import TYPE_CHECKING

from omniq_nb.config.options import PostgresOptions
from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.storage.sql.postgres_connections import libpq_url
from omniq_nb.storage.sql.postgres_errors import said, where

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_manager.dbapi import Connection


class Reader:
    """One connection, used by one thread at a time.

    Parameters
    ----------
    options : PostgresOptions
        Where.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def read(self, statement: str) -> "pa.Table":
        """Run a SELECT without parameters.

        Raises
        ------
        StoreError
            It could not be read, in words.
        """
        from adbc_driver_manager.dbapi import Error

        with self._lock:
            kept = self._connection is not None
            try:
                try:
                    return self._read(statement)
                except Error:
                    self._close()
                    if not kept:
                        raise
                    return self._read(statement)  # the kept one may have been lost long ago
            except Error as error:
                self._close()
                raise StoreError(
                    f"Rows could not be read from {where(self._options)}: "
                    f"{said(error, self._options)}"
                ) from error

    def close(self) -> None:
        """Close the connection, when nobody reads."""
        with self._lock:
            self._close()

    def _read(self, statement: str) -> "pa.Table":
        if self._connection is None:
            self._connection = _connect(self._options)
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetch_arrow_table()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(options: PostgresOptions) -> "Connection":
    try:
        from adbc_driver_postgresql import dbapi
    except ModuleNotFoundError as error:
        raise StoreUnavailable(
            "Reading rows of PostgreSQL needs its ADBC driver: pip install 'omniq_nb[postgres]'"
        ) from error
    # Each SELECT for itself: an open transaction would show old rows, and keep dead ones.
    connection: Connection = dbapi.connect(libpq_url(options, complete=True), autocommit=True)
    return connection
