"""All four stores in one SQL database: one set of statements, a small dialect for each database.

`queue`, `results`, `events` and `schedules` are the stores, `schema` is their tables. They know a
database only through `database`; `sqlite` and `postgres` are two, and give the places.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from omniq_nb.errors import StoreUnavailable

if TYPE_CHECKING:
    from omniq_nb.storage.sql.postgres import PostgresPlace as PostgresPlace
    from omniq_nb.storage.sql.sqlite import SqlitePlace as SqlitePlace

_MODULES = {"PostgresPlace": "postgres", "SqlitePlace": "sqlite"}


def __getattr__(name: str) -> object:
    """Import a place when it is asked for: each needs a driver that others do without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise StoreUnavailable(
            "PostgreSQL needs a driver that is not installed: pip install 'omniq_nb[postgres]'"
        ) from error
