"""The same history gives the same tables, whatever the stores are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omniq_nb.explore import VIEWS, Explorer
from omniq_nb.explore.views import KEYS
from omniq_nb.models.task import State
from omniq_nb.storage.base import Stores
from tests.explore.history import NOON, ODD, PLACES, drive, fill, opened

ARROW = {
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "TYPED": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "VARCHAR[]": pa.list_(pa.field("l", pa.string())),
}


@pytest.fixture(params=PLACES)
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Explorer]:
    async with opened(PLACES[request.param](tmp_path)) as stores:
        yield Explorer(stores)


@pytest.fixture(params=PLACES)
async def explorer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Explorer]:
    async with opened(PLACES[request.param](tmp_path)) as stores:
        await fill(stores)
        yield Explorer(stores)


async def rows(explorer: Explorer, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    table = await explorer.sql(query, parameters)
    return [tuple(row.values()) for row in table.to_pylist()]


async def test_every_view_starts_with_the_key_columns(explorer: Explorer) -> None:
    for view in VIEWS.values():
        table = await explorer.sql(f"from {view.name}")
        assert table.column_names[: len(KEYS)] == [key.name for key in KEYS], view.name
        assert table.num_rows > 0


async def test_an_empty_store_gives_empty_tables_with_all_columns_typed(empty: Explorer) -> None:
    for view in VIEWS.values():
        table = await empty.sql(f"from {view.name}")
        assert table.num_rows == 0
        assert table.schema.names == list(view.names)
        assert table.schema.types == [ARROW[column.type] for column in view.columns], view.name
    assert (await empty.batch_table("none")).num_rows == 0


async def test_the_example_of_the_readme_runs_as_it_stands(explorer: Explorer) -> None:
    table = await explorer.sql(
        "select depth, avg(value) from results where batch = 'sweep-1' group by 1"
    )
    assert sorted(map(tuple, (row.values() for row in table.to_pylist()))) == [(0, 1.5), (1, 3.0)]


async def test_arguments_and_values_have_types(explorer: Explorer) -> None:
    table = await explorer.sql(
        "select arguments, depth, lr, value from results where depth = 0 order by position"
    )
    assert table.schema.field("depth").type == pa.int64()
    assert table.schema.field("lr").type == pa.float64()
    assert table.schema.field("value").type == pa.float64()
    assert table["arguments"][0].as_py() == {"depth": 0, "lr": 0.0, "name": ODD}


async def test_an_argument_called_like_a_column_does_not_hide_it(explorer: Explorer) -> None:
    query = "select name, arguments.name as argument from results where task_id = 't0'"
    assert await rows(explorer, query) == [("fit", ODD)]


async def test_a_result_shows_when_its_attempt_is_the_settled_one(explorer: Explorer) -> None:
    query = "select task_id, token, state, duration from results order by finished_at"
    assert await rows(explorer, query) == [
        *((f"t{i}", 2, "succeeded", 0.5) for i in range(4)),
        ("t4", 2, "failed", 0.5),
        (ODD, 0, "cancelled", None),
    ]
    assert await rows(explorer, "select count(*) from results") == [(6,)]


async def test_the_result_of_a_requeued_task_does_not_show_until_it_ran(
    explorer: Explorer,
) -> None:
    await explorer._stores.task_queue.transition(["t4"], State.QUEUED)
    assert await rows(explorer, "select count(*) from results where task_id = 't4'") == [(0,)]


async def test_the_result_of_a_purged_task_stays(explorer: Explorer) -> None:
    await explorer._stores.task_queue.purge(NOON + 1e6)
    query = "select count(*) from results where batch = 'sweep-1'"
    assert await rows(explorer, query) == [(5,)]
    assert (await explorer.batch_table("sweep-1"))["task_id"].to_pylist() == [
        f"t{i}" for i in range(6)
    ]


async def test_tasks_tell_how_long_they_ran(explorer: Explorer) -> None:
    query = "select task_id, state, attempt, duration, worker from tasks where batch = $batch"
    table = await explorer.sql(query + " order by position", {"batch": "sweep-1"})
    assert table["duration"].to_pylist() == [0.5] * 5 + [None]
    assert table["state"].to_pylist() == ["succeeded"] * 4 + ["failed", "running"]
    assert table["worker"].to_pylist() == ["worker-2"] * 6


async def test_odd_names_come_back_as_they_are(explorer: Explorer) -> None:
    query = "select task_id, name, queue, batch, state from tasks where batch = ?"
    assert await rows(explorer, query, ODD) == [(ODD, ODD, ODD, ODD, "cancelled")]
    table = await explorer.table("tasks", where={"batch": ODD, "queue": [ODD, "x"]})
    assert table["task_id"].to_pylist() == [ODD]
    query = "select id, name, state, next_fire_at is not null from schedules"
    assert await rows(explorer, query) == [(ODD, "fit", "active", True)]


async def test_events_say_where_they_left_the_task(explorer: Explorer) -> None:
    query = (
        "select task_id, type, state, duration, finished_at is null, data -> '$.a[0]' "
        "from events where type <> 'succeeded' order by created_at"
    )
    assert await rows(explorer, query) == [
        ("t4", "failed", "failed", 0.5, False, "1"),
        (ODD, "cancelled", "cancelled", None, True, "1"),
    ]


async def test_workers_are_listed(explorer: Explorer) -> None:
    query = "select worker, state, duration, queues, task_id from workers"
    assert await rows(explorer, query) == [("worker-2", "stopped", 5.0, ["default"], None)]


async def test_a_batch_has_one_row_for_each_task_in_order(explorer: Explorer) -> None:
    table = await explorer.batch_table("sweep-1")
    assert table.column_names[:5] == ["depth", "lr", "name", "value", "state"]
    assert table["position"].to_pylist() == list(range(6))
    assert table["lr"].to_pylist() == [i / 4 for i in range(6)]
    assert table["value"].to_pylist() == [0.0, 1.5, 3.0, 4.5, None, None]
    assert table["state"].to_pylist() == ["succeeded"] * 4 + ["failed", "running"]
    assert table["error"].to_pylist() == [None] * 4 + ["ValueError: no", None]


async def test_rows_are_restricted_in_time_by_a_half_open_range(explorer: Explorer) -> None:
    table = await explorer.table("events", since=NOON + 11.5, until=NOON + 13.5)
    assert table["task_id"].to_pylist() == ["t1", "t2"]
    table = await explorer.table("results", since=NOON + 14.5)
    assert table["task_id"].to_pylist() == ["t4", ODD]
    table = await explorer.table("tasks", since=NOON + 1, until=NOON + 3)
    assert table["task_id"].to_pylist() == ["t1", "t2"]


async def test_a_table_is_filtered_sorted_and_cut_by_any_column(explorer: Explorer) -> None:
    table = await explorer.table(
        "results",
        columns=["task_id", "lr"],
        where={"state": "succeeded", "depth": [0, 1], "error": None},
        order=["-depth", "lr"],
        limit=3,
    )
    assert table.to_pylist() == [
        {"task_id": "t1", "lr": 0.25},
        {"task_id": "t3", "lr": 0.75},
        {"task_id": "t0", "lr": 0.0},
    ]


async def test_all_stores_give_the_same_tables(tmp_path: Path) -> None:
    tables: dict[str, dict[str, list[Any]]] = {}
    for name, make in PLACES.items():
        folder = tmp_path / name
        folder.mkdir()
        async with opened(make(folder)) as stores:
            await fill(stores)
            explorer = Explorer(stores)
            # When a task was claimed, and when a running one's lease ends, is the clock's.
            tables[name] = {
                "tasks": (
                    await explorer.sql(
                        "select * exclude (available_at, started_at) replace "
                        "(if(state = 'cancelled', null, finished_at) as finished_at) "
                        "from tasks order by position, task_id"
                    )
                ).to_pylist(),
                "results": (await explorer.table("results")).to_pylist(),
                "events": (await explorer.table("events")).to_pylist(),
                "schedules": (await explorer.table("schedules")).to_pylist(),
                "workers": (await explorer.table("workers")).to_pylist(),
            }
    assert tables["sqlite"] == tables["memory"]
    assert tables["file"] == tables["memory"]


async def test_queries_run_side_by_side(explorer: Explorer) -> None:
    queries = ["select count(*) as n from tasks", "select count(*) as n from results"] * 4
    answers = await asyncio.gather(*map(explorer.sql, queries))
    assert [table["n"].to_pylist() for table in answers] == [[7], [6]] * 4


def test_off_the_loop_a_query_ends_at_once(tmp_path: Path) -> None:
    place = PLACES["memory"](tmp_path)
    stores = Stores(**{name: getattr(place, name)() for name in Stores.__struct_fields__})
    for name in Stores.__struct_fields__:
        drive(getattr(stores, name).open())
    drive(fill(stores))
    assert drive(Explorer(stores).sql("select count(*) as n from tasks"))["n"].to_pylist() == [7]
    assert drive(Explorer(stores).batch_table("sweep-1")).num_rows == 6
