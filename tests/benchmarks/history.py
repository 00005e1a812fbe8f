"""Ten million events, counted by type and hour: our stores, and DuckDB on one Parquet file.

``python -m tests.benchmarks.history STORE FOLDER [ROWS]``.
"""

import asyncio
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from omniq_nb import OmniQ
from omniq_nb.models.event import Event, EventType
from tests.benchmarks.measure import report, seconds
from tests.benchmarks.ours import place

QUERY = "select type, date_trunc('hour', {time}) as hour, count(*) from {table} group by all"
TYPES = (EventType.ENQUEUED, EventType.STARTED, EventType.SUCCEEDED)


def events(start: int, stop: int) -> list[Event]:
    """A day's history, evenly spread, three events a task."""
    return [
        Event(
            id=f"{i // 3:09}:1:{TYPES[i % 3]}",
            type=TYPES[i % 3],
            at=1.79e9 + i * 0.008,
            task_id=f"{i // 3:09}",
            name="nothing",
            queue="default",
            attempt=1,
            worker="host-1-abc",
        )
        for i in range(start, stop)
    ]


async def fill(oq: OmniQ, rows: int) -> None:
    """Write through the store, as the engine does."""
    store = oq._async._engine.stores.event_storage
    for start in range(0, rows, 50_000):
        await store.append(events(start, min(rows, start + 50_000)))


def main(store: str, folder: Path, rows: int) -> None:
    """Fill, query each side five times, report medians."""
    with OmniQ(place(store, folder)) as oq:
        filled = seconds(lambda: asyncio.run(fill(oq, rows)))
        oq.sql("select 1")
        query = QUERY.format(time="created_at", table="events")
        ours = sorted(seconds(lambda: oq.sql(query, kind="arrow")) for _ in range(5))[2]
        counted = oq.sql("select count(*) as n from events")["n"][0]
        assert counted == rows, counted
        one_file = folder / "one.parquet"
        table = asyncio.run(scanned(oq))
        pq.write_table(table, one_file)
    bare = duckdb.connect()
    bare.execute("SET TimeZone = 'UTC'")
    query = QUERY.format(time='"at"', table=f"read_parquet('{one_file}')")
    limit = sorted(seconds(lambda: bare.execute(query).fetchall()) for _ in range(5))[2]
    report(ours=ours, limit=limit, filled_per_second=rows / filled)


async def scanned(oq: OmniQ) -> pa.Table:
    """The same rows as one table."""
    from omniq_nb.storage.base import Query

    scan = await oq._async._engine.stores.event_storage.scan(Query())
    files = list(scan.files)
    con = duckdb.connect()
    con.register("tail", scan.table)
    source = "select * from tail"
    if files:
        source += f" union all by name select * from read_parquet({files!r}, union_by_name=true)"
    return con.sql(f'from ({source}) order by "at"').to_arrow_table()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 10_000_000)
