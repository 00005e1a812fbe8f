"""A query's result in the panel: a page at a time, sorted, filtered, plotted, written, as code."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from omniq_nb import OmniQ
from omniq_nb.errors import ConfigError, QueryError
from omniq_nb.notebook.panel import charts
from omniq_nb.notebook.panel.rows import Rows

MANY = 1_000_000


@pytest.fixture(scope="module")
def million():
    numbers = np.arange(MANY)
    table = pa.table(
        {
            "n": numbers,
            "word": pa.array([f"w{n % 1000:03}" for n in numbers]),
            "x": np.random.default_rng(1).random(MANY),
        }
    )
    return Rows("select 1", table)


def small(**columns):
    return Rows("SELECT * FROM tasks;", pa.table(columns))


def test_pages_of_a_million_rows(million):
    assert million.total == MANY
    assert [row[0] for row in million.page(0, 3)] == ["0", "1", "2"]
    assert [row[:2] for row in million.page(MANY - 2, 50)] == [
        ["999998", "w998"],
        ["999999", "w999"],
    ]
    assert million.page(MANY, 50) == []


async def test_a_million_rows_sorted_and_filtered(million):
    falling = await million.arranged("", ("n", True))
    assert [row[0] for row in falling.page(500_000, 2)] == ["499999", "499998"]
    by_word = await million.arranged("n < 10000 AND word LIKE '%7'", ("word", False))
    assert by_word.total == 1000
    # Equal ones in the order that they had.
    assert [row[:2] for row in by_word.page(9, 2)] == [["9007", "w007"], ["17", "w017"]]
    by_x = await million.arranged("", ("x", False))
    assert float(by_x.page(0, 1)[0][2]) == pytest.approx(million.table["x"].to_numpy().min())
    assert million.total == MANY  # it never changes itself


def test_what_was_measured_and_when_is_offered_to_plot():
    moments = pa.array([0], pa.timestamp("us"))
    assert small(id=["a"], attempt=[1], at=moments, took=[0.5]).likely() == ("took", "at")
    assert small(id=["a"], attempt=[1]).likely() == ("attempt", "attempt")
    assert small(id=["a"]).likely() == ("id", "id")
    assert Rows("select", pa.table({})).likely() == (None, None)


async def test_nothing_comes_last_in_both_directions():
    rows = small(a=[2, None, 1])
    for descending, wanted in ((False, ["1", "2", None]), (True, ["2", "1", None])):
        sorted_rows = await rows.arranged("", ("a", descending))
        assert [cell for (cell,) in sorted_rows.page(0, 9)] == wanted


@pytest.mark.parametrize(
    ("condition", "words"),
    [("duratoin > 1", "duratoin"), ("a >", "syntax"), ("a > (SELECT 1 FROM 'x.csv')", "disabled")],
)
async def test_a_wrong_condition_says_why(condition, words):
    with pytest.raises(QueryError, match=f"(?i){words}"):
        await small(a=[1]).arranged(condition, ("", False))


async def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="order: got 'b'"):
        await small(a=[1]).arranged("", ("b", False))


def test_cells_are_short_texts():
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=dt.UTC)
    rows = small(a=[moment], b=[0.1 + 0.2], c=["x" * 5000], d=[{"k": [1, None]}], e=[True])
    (row,) = rows.page(0, 1)
    assert row[0] == "2026-01-02 03:04:05.678"
    assert row[1] == "0.3"
    assert len(row[2]) == 300 and row[2].endswith("…")
    assert row[3:] == ["{'k': [1, None]}", "true"]
    json.dumps(rows.columns())


async def test_the_code_gives_the_same_rows():
    with OmniQ("memory://") as oq:
        oq.workers.start(2)
        oq.map(pow, [3, 1, 2], [2, 2, 2]).results(timeout=30)
        query = 'SELECT name, value AS "the \\ value" FROM results'
        engine = oq._caller.engine
        rows = Rows(query, oq._caller.loop.call(engine.explorer.sql(query)))
        for condition, order in [
            ("", ("", False)),
            ('"the \\ value" > 1', ("the \\ value", True)),
            ("name = 'pow'", ("", False)),
        ]:
            seen = await rows.arranged(condition, order)
            known = {"oq": oq}
            exec(seen.code(), known)
            expected = (await seen.select()).to_pandas()
            pd.testing.assert_frame_equal(known["frame"], expected)


async def test_export_as_csv_and_parquet(tmp_path):
    rows = small(a=[3, 1, 2], b=[[1], None, [2, 3]], c=["x,y", 'q"', "é"])
    seen = await rows.arranged("a > 1", ("a", False))
    csv = await seen.export(str(tmp_path / "out.csv"))
    frame = pd.read_csv(csv)
    assert frame.a.tolist() == [2, 3] and frame.c.tolist() == ["é", "x,y"]
    parquet = await seen.export(str(tmp_path / "OUT.PARQUET"))
    assert pa.parquet.read_table(parquet).to_pydict() == {
        "a": [2, 3],
        "b": [[2, 3], [1]],
        "c": ["é", "x,y"],
    }


@pytest.mark.parametrize("name", ["out.txt", "out", "no/such/folder/out.csv"])
async def test_a_file_that_cannot_be_written_is_said(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="file: got"):
        await small(a=[1]).export(name)


# -------------------------------------------------------------------- plots


def values(plot):
    spec = plot.spec()
    (data,) = spec["datasets"].values()
    return data


def test_a_histogram_of_numbers_counts_every_row(million):
    plot = charts.histogram(million.table, "x")
    bars = values(plot)
    assert len(bars) == 40
    assert sum(bar["rows"] for bar in bars) == MANY
    assert "1,000,000" in plot.title


def test_a_histogram_of_words_shows_the_most_frequent():
    table = pa.table({"w": ["a"] * 3 + ["b"] + [None] + [f"{n}" for n in range(100)]})
    plot = charts.histogram(table, "w")
    bars = values(plot)
    assert bars[0] == {"value": "a", "rows": 3} and len(bars) == 25
    assert "25 most frequent of 102" in plot.title


def test_a_timeline_counts_rows_over_time():
    moments = pa.array([0, 1_000_000, None, 10_000_000], pa.timestamp("us", "UTC"))
    bars = values(charts.timeline(pa.table({"t": moments}), "t"))
    assert sum(bar["rows"] for bar in bars) == 3
    assert bars[0]["begin"].startswith("1970-01-01T00:00:00")


def test_a_scatter_plot_shows_a_bounded_number_of_points(million):
    plot = charts.scatter(million.table, "n", "x")
    assert len(values(plot)) == 1000
    assert "1,000 of them shown" in plot.title


@pytest.mark.parametrize(
    ("kind", "columns", "words"),
    [
        ("timeline", ["word"], "moments"),
        ("scatter", ["n", "word"], "numbers"),
        ("scatter", ["word", "n"], "numbers"),
    ],
)
def test_a_column_that_does_not_fit_is_said(million, kind, columns, words):
    with pytest.raises(ConfigError, match=words):
        getattr(charts, kind)(million.table, *columns)


@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.timestamp("us", "UTC")])
def test_nothing_at_all_can_be_plotted(kind):
    table = pa.table({"a": pa.array([None, None], kind)})
    charts.histogram(table, "a").spec()
    if kind != pa.string():
        (charts.scatter(table, "a", "a") if kind == pa.float64() else charts.timeline(table, "a"))
