"""All four stores in one SQL database: one set of statements, a small dialect for each database.

`queue`, `results`, `events` and `schedules` are the stores, `schema` is their tables. They know a
database only through `database`; `sqlite` is one, and gives the place. PostgreSQL will be another
module like it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omniq_nb.storage.sql.sqlite import SqlitePlace as SqlitePlace


def __getattr__(name: str) -> object:
    """Import a place when it is asked for: each needs a driver that others do without."""
    if name == "SqlitePlace":
        from omniq_nb.storage.sql.sqlite import SqlitePlace

        return SqlitePlace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
