"""The Arrow schemas in which stores give their rows to DuckDB, and how rows get there.

Times are microseconds since 1970 with time zone UTC. These are the columns of the Parquet
segments too (`omniq_nb.storage.objects` adds `payload`), so they are only ever added to.

Not here: the views that users query (`omniq_nb.explore`).
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule
from omniq_nb.models.task import Task, WorkerInfo

TIME = pa.timestamp("us", tz="UTC")

MANY = 100_000
"""From so many keys on, hashes of DuckDB's are compared faster than Arrow counts the keys."""

TASKS = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("queue", pa.string()),
        ("priority", pa.int64()),
        ("batch", pa.string()),
        ("position", pa.int64()),
        ("arguments", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("metadata", pa.string()),
        ("created_at", TIME),
        ("available_at", TIME),
        ("expires_at", TIME),
        ("timeout", pa.float64()),
        ("depends_on", pa.list_(pa.string())),
        ("schedule", pa.string()),
        ("state", pa.string()),
        ("attempt", pa.int64()),
        ("token", pa.int64()),
        ("lost", pa.int64()),
        ("worker", pa.string()),
        ("started_at", TIME),
        ("finished_at", TIME),
        ("error", pa.string()),
    ]
)

RESULTS = pa.schema(
    [
        ("task_id", pa.string()),
        ("token", pa.int64()),
        ("name", pa.string()),
        ("queue", pa.string()),
        ("batch", pa.string()),
        ("position", pa.int64()),
        ("arguments", pa.string()),
        ("state", pa.string()),
        ("attempt", pa.int64()),
        ("worker", pa.string()),
        ("created_at", TIME),
        ("started_at", TIME),
        ("finished_at", TIME),
        ("value", pa.string()),
        ("value_type", pa.string()),
        ("error", pa.string()),
        ("traceback", pa.string()),
        ("output", pa.string()),
        ("expires_at", TIME),
    ]
)

EVENTS = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("at", TIME),
        ("task_id", pa.string()),
        ("name", pa.string()),
        ("queue", pa.string()),
        ("batch", pa.string()),
        ("attempt", pa.int64()),
        ("worker", pa.string()),
        ("started_at", TIME),
        ("message", pa.string()),
        ("data", pa.string()),
    ]
)


def microseconds(seconds: float | None) -> int | None:
    """Seconds since 1970 as the integer that an Arrow time holds."""
    return None if seconds is None else round(seconds * 1_000_000)


def table(rows: Iterable[Task | Result | Event], schema: pa.Schema) -> pa.Table:
    """Structs as an Arrow table in one of the schemas above, or in a selection of its columns."""
    rows = list(rows)
    # Two functions of C: a loop in Python would take longer than all the rest.
    return _from_columns((list(map(attrgetter(name), rows)) for name in schema.names), schema)


def one_of_each(rows: pa.Table, key: str, which: Literal["min", "max"] = "min") -> pa.Table:
    """Of rows with the same key the first one, or the last, in the order that they had.

    Parameters
    ----------
    rows : pyarrow.Table
        The rows.
    key : str
        The column that tells them apart.
    which : {"min", "max"}
        By the number of the row: the first or the last.
    """
    keys = rows.column(key)
    if _all_differ(keys):
        return rows
    numbered = pa.table({"key": keys, "number": pa.array(range(len(keys)))})
    kept = numbered.group_by("key").aggregate([("number", which)]).column(f"number_{which}")
    return rows.take(kept.sort())


def _all_differ(keys: pa.ChunkedArray) -> bool:
    """Whether no key is there twice. If hashes collide by chance it says no: that does no harm."""
    if len(keys) < MANY:
        return bool(pc.count_distinct(keys).as_py() == len(keys))
    import duckdb  # takes a while to import, and is needed here only

    with duckdb.connect() as connection:
        connection.register("found", pa.table({"key": keys}))
        hashes = connection.execute("SELECT hash(key) AS hash FROM found").fetchnumpy()["hash"]
    ordered = np.sort(np.asarray(hashes))  # half of the time that DuckDB takes to count them
    return not bool((ordered[1:] == ordered[:-1]).any())


def select(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The part of a schema that a query asks for."""
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


# Schedules and workers are few: they go to DuckDB as rows, so their schemas serve views only.
SCHEDULES = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("cron", pa.string()),
        ("every", pa.float64()),
        ("timezone", pa.string()),
        ("name", pa.string()),
        ("queue", pa.string()),
        ("state", pa.string()),
        ("next_fire_at", TIME),
        ("last_fire_at", TIME),
        ("created_at", TIME),
        ("version", pa.int64()),
    ]
)

WORKERS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("queues", pa.list_(pa.string())),
        ("concurrency", pa.int64()),
        ("state", pa.string()),
        ("host", pa.string()),
        ("pid", pa.int64()),
        ("started_at", TIME),
        ("heartbeat_at", TIME),
        ("running", pa.int64()),
        ("succeeded", pa.int64()),
        ("failed", pa.int64()),
        ("log", pa.string()),
    ]
)


def schedules_table(schedules: Iterable[Schedule]) -> pa.Table:
    """Schedules as rows of `SCHEDULES`."""
    rows = []
    for schedule in schedules:
        row = {**msgspec.structs.asdict(schedule)}
        row["name"], row["queue"] = schedule.template.name, schedule.template.queue
        rows.append(row)
    return _from_dicts(rows, SCHEDULES)


def workers_table(workers: Iterable[WorkerInfo]) -> pa.Table:
    """Workers as rows of `WORKERS`."""
    return _from_dicts([msgspec.structs.asdict(info) for info in workers], WORKERS)


def _from_dicts(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return _from_columns(([row[name] for row in rows] for name in schema.names), schema)


def _from_columns(columns: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Columns of Python values as a table. One after the other: many rows take much memory."""
    arrays = [
        pa.array(
            [microseconds(value) for value in values] if field.type == TIME else values,
            type=field.type,
        )
        for field, values in zip(schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
