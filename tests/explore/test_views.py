"""What the views give: times, names, frames; and that they are documented."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from omniq_nb.errors import ConfigError
from omniq_nb.explore import VIEWS, Explorer, to_frame
from omniq_nb.explore.views import EVENT_STATES, markdown
from omniq_nb.models.event import Event, EventType
from omniq_nb.storage import tables
from omniq_nb.storage.base import Query, Scan
from tests.explore.history import NOON, Fake, fakes, parquet, result

ROOT = Path(__file__).parents[2]


def test_the_page_of_tables_is_up_to_date() -> None:
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m omniq_nb.explore > docs/tables.md"


def test_every_column_is_made_of_columns_that_stores_have() -> None:
    for view in VIEWS.values():
        schema: pa.Schema = getattr(tables, view.name.upper())
        needed = {name for column in view.columns for name in column.needs}
        assert needed <= set(schema.names), view.name
        assert len(set(view.names)) == len(view.names)


def test_every_column_of_the_stores_can_be_queried() -> None:
    for view in VIEWS.values():
        needed = {name for column in view.columns for name in column.needs}
        assert needed == set(getattr(tables, view.name.upper()).names), view.name


def test_every_type_of_event_about_a_task_has_a_state() -> None:
    known = {type for types in EVENT_STATES.values() for type in types}
    others = {"worker_started", "worker_stopped", "schedule_fired", "environment"}
    assert known | others == set(map(str, EventType))


async def test_names_of_columns_need_no_quotes() -> None:
    for view in VIEWS.values():
        await Explorer(fakes()).sql(
            f"select {', '.join(view.names)} from {view.name} order by {', '.join(view.names)}"
        )


def test_nothing_heavy_is_imported_before_the_first_query() -> None:
    heavy = "duckdb pyarrow pandas polars numpy"
    code = (
        "import sys; from omniq_nb.explore import Explorer; "
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_pandas_is_imported_only_for_pandas() -> None:
    # Stores that make Arrow tables of Python's lists import it: pyarrow does that.
    code = """
import asyncio, sys
import pyarrow as pa
from omniq_nb.explore import Explorer, to_frame
from omniq_nb.storage import tables
from omniq_nb.storage.base import Scan
from tests.explore.history import Fake, fakes

async def scan(self, query):
    return Scan(pa.Table.from_batches([], tables.select(self.schema, query.columns)))

Fake.scan = scan
to_frame(asyncio.run(Explorer(fakes()).sql("from results, events, tasks")), "arrow")
print([name for name in ("pandas", "polars") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


async def test_date_trunc_of_every_kind_of_time_is_what_it_always_was() -> None:
    found = await Explorer(fakes()).sql(
        """
        with moments as (
            select make_timestamptz((random() * 4e15 - 1e15)::bigint) as moment from range(1000)
        ), parts as (select unnest(
            ['year', 'quarter', 'month', 'week', 'day', 'hour', 'minute', 'second']
        ) as part)
        select count(*) as n, count(*) filter (
            date_trunc(part, moment) = system.main.date_trunc(part, moment)
            and typeof(date_trunc(part, moment)) = 'TIMESTAMP WITH TIME ZONE'
            and date_trunc(part, moment::timestamp)
                = system.main.date_trunc(part, moment::timestamp)
            and typeof(date_trunc(part, moment::timestamp)) = 'TIMESTAMP'
            and date_trunc(part, moment::date) = system.main.date_trunc(part, moment::date)
        ) as equal from moments, parts
        """
    )
    assert found.to_pylist() == [{"n": 8000, "equal": 8000}]
    found = await Explorer(fakes()).sql("select date_trunc('hour', interval '90 minutes') as it")
    assert found["it"][0].as_py().nanoseconds == 3_600_000_000_000
    event = Event(id="a", type=EventType.STARTED, at=NOON)
    found = await Explorer(fakes(events=[event])).sql(
        "select date_trunc('day', created_at) as day, "
        "created_at at time zone 'Europe/Berlin' as there from events"
    )
    assert found["day"].to_pylist() == [datetime(2025, 6, 15, tzinfo=UTC)]
    assert found["there"].to_pylist() == [datetime(2025, 6, 15, 17, 6, 40)]


async def test_columns_of_the_same_name_are_told_apart() -> None:
    found = await Explorer(fakes()).sql("select 1 as a, 2 as a, 3 as a_1, 4 as a")
    assert found.to_pydict() == {"a": [1], "a_1": [2], "a_1_1": [3], "a_2": [4]}


async def test_sums_of_integers_are_integers() -> None:
    found = await Explorer(fakes()).sql(
        "select sum(n) as n, sum(n * 9000000000000000000::hugeint) as huge "
        "from (values (1), (2)) as t(n)"
    )
    assert found.schema.field("n").type == pa.int64()
    assert found["huge"].to_pylist() == [27 * 10**18]


async def test_older_files_lack_columns_that_came_later(tmp_path: Path) -> None:
    old = tmp_path / "old.parquet"
    event = Event(id="a", type=EventType.STARTED, at=NOON, message="gone")
    pq.write_table(tables.table([event], tables.EVENTS).drop_columns(["message", "data"]), old)
    explorer = Explorer(fakes(event_files=[str(old)]))
    found = await explorer.sql("select type, message, data from events")
    assert found.to_pylist() == [{"type": "started", "message": None, "data": None}]


async def test_files_may_hold_more_columns_than_the_views(tmp_path: Path) -> None:
    rows = tables.table([result("a", "1")], tables.RESULTS)
    path = tmp_path / "a.parquet"
    pq.write_table(rows.append_column("payload", pa.array([b"x" * 1000])), path)
    found = await Explorer(fakes(result_files=[str(path)])).sql("from results")
    assert "payload" not in found.column_names
    assert found["value"].to_pylist() == [1]


async def test_files_in_folders_with_odd_names_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1] *? 🦆"
    folder.mkdir()
    event = Event(id="a", type=EventType.STARTED, at=NOON)
    file = parquet(folder / "date=2026-01-01.parquet", [event], tables.EVENTS)
    found = await Explorer(fakes(event_files=[file])).sql("select id from events")
    assert found["id"].to_pylist() == ["a"]


async def test_only_the_columns_of_the_query_are_read_from_files(tmp_path: Path) -> None:
    event = Event(id="a", type=EventType.STARTED, at=NOON)
    file = parquet(tmp_path / "a.parquet", [event], tables.EVENTS)
    found = await Explorer(fakes(event_files=[file])).sql(
        "explain (format json) select type, date_trunc('hour', created_at) as hour, count(*) "
        "from events group by all"
    )
    (explained,) = found["explain_value"].to_pylist()
    assert '"type"' in explained
    assert '"at"' in explained
    assert not any(f'"{name}"' in explained for name in ("started_at", "message", "worker", "id"))


def test_frames_of_each_kind_hold_the_same() -> None:
    table = pa.table(
        {
            "n": pa.array([2**53 + 1, None], pa.int64()),
            "at": pa.array([0, 1], pa.timestamp("us", "UTC")),
            "text": ["a", None],
        }
    )
    assert to_frame(table, "arrow") is table
    frame = to_frame(table)
    assert isinstance(frame, pd.DataFrame)
    assert frame["n"][0] == 2**53 + 1
    assert frame["n"].isna().tolist() == [False, True]
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert isinstance(to_frame(table, "polars"), pl.DataFrame)
    with pytest.raises(ConfigError, match="pandas, arrow, polars"):
        to_frame(table, "panda")


def test_without_polars_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigError, match="pip install polars"):
        to_frame(pa.table({"a": [1]}), "polars")


async def test_workers_and_schedules_come_from_their_lists() -> None:
    stores = fakes()
    assert isinstance(stores.schedule_storage, Fake)
    found = await Explorer(stores).sql("select count(*) as n from schedules, workers")
    assert found["n"].to_pylist() == [0]


@pytest.mark.parametrize("moments", [range(300_000), range(300_000, 0, -1), [3, None, 1, 2]])
async def test_a_table_is_by_time_however_its_rows_come(moments: Sequence[int | None]) -> None:
    times = pa.array(moments, pa.int64()).cast(tables.TIME)

    class Rows(Fake):
        async def scan(self, query: Query) -> Scan:
            empty = tables.select(self.schema, query.columns).empty_table()
            columns = {
                name: times if name == "finished_at" else pa.nulls(len(times), column.type)
                for name, column in zip(empty.column_names, empty.columns, strict=True)
            }
            return Scan(pa.table(columns))

    stores = msgspec.structs.replace(fakes(), result_storage=Rows(tables.RESULTS))
    found = await Explorer(stores).table("results", columns=["finished_at", "name"])
    assert found["finished_at"].combine_chunks().equals(times.take(pc.sort_indices(times)))
    found = await Explorer(stores).table("results", limit=2)
    assert found["finished_at"].to_pylist() == times.take(pc.sort_indices(times))[:2].to_pylist()
