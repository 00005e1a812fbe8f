"""A query reads the views, and does nothing else."""

import asyncio
import threading
from pathlib import Path

import pytest

from omniq_nb.errors import ConfigError, QueryError
from omniq_nb.explore import Explorer
from omniq_nb.models.event import Event, EventType
from omniq_nb.storage import tables
from tests.explore.history import NOON, fakes, parquet, result

EVENTS = [Event(id="a", type=EventType.STARTED, at=NOON), Event(id="b", type="failed", at=NOON)]

READING = [
    "select 1 as n",
    "SELECT count(*) FROM events;",
    "with x as (from events) select * from x",
    "with recursive t(n) as (select 1 union all select n + 1 from t where n < 5) from t",
    "from events",
    "table events",
    "values (1, 2)",
    "describe events",
    "show events",
    "show tables",
    "summarize results",
    "pivot events on type using count(*)",
    "pivot events on type in ('started', 'failed') using count(*)",
    "unpivot (select 1 as a, 2 as b) on a, b",
    "explain select * from events",
    "/* why */ explain analyze select * from events",
    "explain (format json) select * from events",
    "select 'copy; drop table events' as text -- insert",
    "select type, value from events, results",
]

WRITING = [
    "insert into events values (1)",
    "update events set type = 'x'",
    "delete from events",
    "create table x (a int)",
    "create or replace view events as select 1",
    "drop view events",
    "copy events to '{folder}/out.csv'",
    "copy (select 1) to '{file}' (format parquet, use_tmp_file false)",
    "explain analyze copy (select 1) to '{file}' (format parquet, use_tmp_file false)",
    "with x as (copy (select 1) to '{file}' (format parquet, use_tmp_file false)) from x",
    "with x as (copy (select 1) to '{file}' (format parquet, use_tmp_file false)) "
    "pivot events on type using count(*)",
    "with x as (delete from events returning *) from x",
    "explain analyze with x as (copy (select 1) to '{file}' (use_tmp_file false)) from x",
    "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "from query('from events')",
    "select * from \"query_table\"('events')",
    "export database '{folder}/all'",
    "attach '{folder}/new.db'",
    "install httpfs",
    "load httpfs",
    "set threads = 1",
    "reset threads",
    "pragma enable_profiling",
    "call pragma_version()",
    "begin",
    "checkpoint",
    "use store",
    "prepare x as select 1",
    "select 1; select 2",
    "select 1; drop view events",
    "",
    "-- nothing",
    "explain insert into events values (1)",
]

OUTSIDE = [
    "from '/etc/passwd'",
    "from read_text('/etc/passwd')",
    "from read_csv('/etc/passwd')",
    "from read_blob('{folder}/secret.txt')",
    "from '{folder}/secret.csv'",
    "from glob('{folder}/*')",
    "from read_parquet('{folder}/*.parquet')",
    "from '{folder}/other.parquet'",
    "from parquet_metadata('{folder}/other.parquet')",
    "from sniff_csv('/etc/passwd')",
    "from read_json('/proc/self/environ')",
    "from 'https://example.com/x.parquet'",
    "from 's3://bucket/x.parquet'",
    "from enable_logging(storage='file', storage_path='{folder}/log')",
    "from enable_profiling()",
    "from python_variable",
    "select python_variable",
    "select getenv('HOME')",
    "from arrow_scan(1, 2, 3)",
    "select * from events where exists (from pandas_scan(1))",
    "pivot (from arrow_scan(1, 2, 3)) on a using count(*)",
]


@pytest.fixture
def explorer(tmp_path: Path) -> Explorer:
    """Of one event in a file and one in memory."""
    parquet(tmp_path / "other.parquet", EVENTS, tables.EVENTS)
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    (tmp_path / "secret.txt").write_text("secret")
    file = parquet(tmp_path / "event.parquet", EVENTS[:1], tables.EVENTS)
    return Explorer(fakes(results=[result("a", "1")], events=EVENTS[1:], event_files=[file]))


@pytest.mark.parametrize("query", READING)
async def test_a_query_that_reads_runs(explorer: Explorer, query: str) -> None:
    assert (await explorer.sql(query)).num_rows > 0


@pytest.mark.parametrize("query", WRITING)
async def test_anything_else_is_refused(explorer: Explorer, tmp_path: Path, query: str) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(QueryError) as refused:
        await explorer.sql(query.format(folder=tmp_path, file=tmp_path / "event.parquet"))
    assert "SELECT" in str(refused.value) or "PIVOT" in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("query", OUTSIDE)
async def test_nothing_outside_the_stores_can_be_read(
    explorer: Explorer, tmp_path: Path, query: str
) -> None:
    python_variable = tables.EVENTS.empty_table()
    with pytest.raises(QueryError):
        await explorer.sql(query.format(folder=tmp_path))
    # With a store's file mentioned too: it is that query's connection that may open files.
    query = query.format(folder=tmp_path)
    with pytest.raises(QueryError):
        await explorer.sql(f"select (select count(*) from events) as n, * from ({query})")
    assert not (tmp_path / "log").exists()
    assert python_variable.num_rows == 0


async def test_settings_stay_locked_whatever_ran_before(explorer: Explorer) -> None:
    for _ in range(2):
        with pytest.raises(QueryError):
            await explorer.sql("set enable_external_access = true")
        found = await explorer.sql("select current_setting('enable_external_access') as it")
        assert found["it"].to_pylist() == [False]


async def test_errors_are_in_duckdb_s_words_with_the_place(explorer: Explorer) -> None:
    with pytest.raises(QueryError) as wrong:
        await explorer.sql("select tpye from events")
    assert "tpye" in str(wrong.value)
    assert '"type"' in str(wrong.value)
    assert "LINE 1" in str(wrong.value)
    assert "EXPLAIN" not in str(wrong.value)
    assert wrong.value.__cause__ is None
    with pytest.raises(QueryError, match="syntax error"):
        await explorer.sql("selekt 1")
    with pytest.raises(QueryError, match="dpeth"):
        await explorer.sql("select dpeth from results")


async def test_parameters_are_bound_and_never_read_as_sql(explorer: Explorer) -> None:
    nasty = "' or 1=1; drop view events; --"
    for query, parameters in [
        ("select ? as it from events limit 1", [nasty]),
        ("select $it as it from events limit 1", {"it": nasty}),
    ]:
        assert (await explorer.sql(query, parameters))["it"].to_pylist() == [nasty]
    found = await explorer.sql("select type from events where type = $type", {"type": "failed"})
    assert found["type"].to_pylist() == ["failed"]
    with pytest.raises(QueryError, match="parameter"):
        await explorer.sql("select ? as it", [1, 2])
    with pytest.raises(ConfigError, match="parameters"):
        await explorer.sql("select ? as it", "a")


async def test_only_what_a_query_reads_is_asked_for(tmp_path: Path) -> None:
    stores = fakes(results=[result("a", "1", '{"n": 1}')], events=EVENTS)
    queue, results, events = stores.task_queue, stores.result_storage, stores.event_storage
    explorer = Explorer(stores)
    await explorer.sql("select type, count(*) from events where batch is null group by 1")
    assert set(events.asked.pop().columns) == {"type", "batch"}
    assert not queue.asked
    assert not results.asked
    await explorer.sql("select state, max(value) from results where task_id = ? group by 1", ["a"])
    assert set(results.asked.pop().columns) == {"state", "value", "task_id"}
    assert set(queue.asked.pop().columns) == {"id", "token", "state"}
    await explorer.sql("select count(*) from events")
    assert len(events.asked.pop().columns) == 1
    await explorer.sql("select 'results' as text, e.* from events as e")
    assert set(events.asked.pop().columns) == set(tables.EVENTS.names)
    assert not results.asked
    await explorer.sql("select n from results")
    assert "arguments" in results.asked.pop().columns


async def test_what_a_store_can_select_by_is_pushed_down() -> None:
    stores = fakes(results=[result("a", "1", batch="b")])
    explorer = Explorer(stores)
    await explorer.table("results", where={"batch": "b", "value": 1}, since=1.0, until=2.0e9)
    asked = stores.result_storage.asked.pop()
    assert asked.equals == {"batch": ("b",)}
    assert (asked.since, asked.until) == (1.0, 2.0e9)
    assert stores.task_queue.asked.pop().equals["batch"] == ("b",)
    await explorer.table("tasks", where={"task_id": ["a", "b"]})
    assert stores.task_queue.asked.pop().equals == {"id": ("a", "b")}


async def test_an_unknown_view_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'results'"):
        await Explorer(fakes()).table("result")
    with pytest.raises(QueryError, match="stat"):
        await Explorer(fakes()).table("results", where={"stat": "failed"})


async def test_an_injected_name_is_just_an_unknown_column() -> None:
    for arguments in (
        {"columns": ['id" from events; --']},
        {"where": {'1=1; --"': 1}},
        {"order": 'id"; drop view events; --'},
    ):
        with pytest.raises(QueryError):
            await Explorer(fakes(events=EVENTS)).table("events", **arguments)  # type: ignore[arg-type]


async def test_a_cancelled_query_stops(explorer: Explorer) -> None:
    endless = "select count(*) from range(1000000000000) as t(i) where hash(i) % 7 = 3"
    query = asyncio.create_task(explorer.sql(endless))
    await asyncio.sleep(0.3)
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(query, 60)


async def test_the_loop_goes_on_while_a_query_runs(explorer: Explorer) -> None:
    threads = set()
    explorer._session = lambda *_: threads.add(threading.get_ident()) or 1 / 0  # type: ignore[assignment,func-returns-value]
    with pytest.raises(ZeroDivisionError):
        await explorer.sql("from events")
    assert threads
    assert threading.get_ident() not in threads
