"""Plots: right numbers, few marks, clear errors, and nothing fetched from anywhere."""

import json
import subprocess
import sys
import time
from base64 import b64decode

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbconvert import HTMLExporter

import omniq_nb
from omniq_nb import AsyncOmniQ, OmniQ, plots
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import State
from omniq_nb.notebook import shapes
from omniq_nb.notebook.theme import COLOURS


def score(lr, depth=1, kind="a"):
    if depth == 0:
        raise ValueError("no depth")
    return lr * depth


def measured(lr):
    return {"accuracy": 1 - lr, "words": "none"}


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        client.workers.start(2)
        yield client


def rows(plot):
    """All that the plot draws from."""
    spec = plot.spec()
    return [row for data in spec["datasets"].values() for row in data]


def frame(tasks):
    """What a batch of so many tasks would give."""
    random = np.random.default_rng(1)
    starts = pd.Timestamp("2026-11-25T10:00:00Z") + pd.to_timedelta(np.arange(tasks) / 100, "s")
    took = random.lognormal(-4, 0.5, tasks)
    return pd.DataFrame(
        {
            "lr": random.choice([0.1, 0.2, 0.3], tasks),
            "depth": random.choice([2, 4, 8], tasks),
            "kind": random.choice(["a", "b"], tasks),
            "value": random.normal(size=tasks),
            "state": random.choice(["succeeded", "failed"], tasks),
            "duration": took,
            "worker": random.choice(["one", "two"], tasks),
            "started_at": starts,
            "finished_at": starts + pd.to_timedelta(took, "s"),
            "task_id": [str(number) for number in range(tasks)],
        }
    )


class TestOfABatch:
    def test_each_kind_is_one_call(self, oq):
        batch = oq.map(score, lr=[0.1, 0.2, 0.3], depth=[0, 2, 4], name="sweep-1")
        batch.wait(timeout=30)
        for kind in ("durations", "timeline", "throughput"):
            plot = batch.plot(kind)
            assert "sweep-1" in plot.title
            assert "9 tasks" in plot.title
            bundle, metadata = plot._repr_mimebundle_()
            assert b64decode(bundle["image/png"]).startswith(b"\x89PNG")
            assert 300 < metadata["image/png"]["width"] < 1000
            assert json.loads(json.dumps(bundle[plots.VEGALITE]))
            assert bundle["text/plain"] == f"<Plot: {plot.title}>"
        assert sum(row["tasks"] for row in rows(plots.durations(batch))) == 9
        heat = rows(batch.plot("sweep"))
        assert len(heat) == 6
        assert {(row["x"], row["y"]): row["mean"] for row in heat}[(0.3, 4.0)] == 0.3 * 4

    async def test_the_awaitable_twin_gives_the_same(self):
        async with AsyncOmniQ("memory://") as oq:
            await oq.workers.start(2)
            batch = await oq.map(score, lr=[0.1, 0.2], name="twin")
            await batch.wait(timeout=30)
            plot = await batch.plot("sweep")
        assert plot.title == "value by lr of twin"
        assert [row["value"] for row in rows(plot)] == [0.1, 0.2]

    def test_a_name_inside_of_the_values_can_be_chosen(self, oq):
        batch = oq.map(measured, lr=[0.25, 0.5], name="inner")
        batch.wait(timeout=30)
        assert [row["value"] for row in rows(batch.plot("sweep", value="accuracy"))] == [0.75, 0.5]
        with pytest.raises(ConfigError, match=r"'accuracyy'.*accuracy.*Did you mean 'accuracy'"):
            batch.plot("sweep", value="accuracyy")
        with pytest.raises(ConfigError, match="one of the names in values: accuracy, words"):
            batch.plot("sweep")

    def test_running_tasks_reach_to_the_end_of_the_timeline(self):
        some = frame(4)
        some.loc[3, "finished_at"] = pd.NaT
        bars = rows(plots.timeline(some))
        assert len(bars) == 4
        assert max(row["end"] for row in bars) == bars[3]["end"] >= bars[3]["begin"]

    def test_an_empty_batch_has_plots_too(self, oq):
        none = oq.map(score, lr=[])
        for kind in ("durations", "timeline", "throughput"):
            assert "0 tasks" in none.plot(kind).title
        with pytest.raises(ConfigError):
            none.plot("sweep")


class TestOfAFrame:
    def test_tasks_that_overlap_get_lanes_of_their_own(self):
        some = pd.DataFrame(
            {
                "worker": ["w", "w", "w", "w"],
                "started_at": [0.0, 1.0, 2.0, 5.0],
                "finished_at": [4.0, 3.0, 6.0, 7.0],
            }
        )
        assert [row["lane"] for row in rows(plots.timeline(some))] == [0, 1, 2, 0]

    def test_throughput_counts_every_task_once(self):
        bars = rows(plots.throughput(frame(1000)))
        assert sum(row["tasks"] for row in bars) == 1000
        counted = sum(row["rate"] * (row["end"] - row["begin"]) for row in bars)
        assert round(counted) == 1000

    def test_durations_over_many_magnitudes_get_a_logarithmic_scale(self):
        wide = pd.DataFrame({"duration": [0.001] * 50 + [0.01, 0.1, 1.0, 10.0]})
        x = plots.durations(wide).spec()["encoding"]["x"]
        assert x["scale"]["type"] == "log"
        assert sum(row["tasks"] for row in rows(plots.durations(wide))) == 54

    def test_three_parameters_give_parallel_coordinates(self):
        plot = plots.sweep(frame(50))
        assert plot.title == "value by lr, depth, kind"
        lines = [row for row in rows(plot) if "task" in row]
        assert len(lines) == 50 * 4
        assert all(0 <= row["place"] <= 1 for row in lines)

    def test_two_chosen_parameters_give_the_mean_over_the_others(self):
        some = frame(300)
        cells = rows(plots.sweep(some, x="lr", y="kind"))
        mean = some[(some.lr == 0.1) & (some.kind == "a")]["value"].mean()
        (cell,) = (row for row in cells if (row["x"], row["y"]) == (0.1, "a"))
        assert cell["mean"] == pytest.approx(mean)

    def test_tasks_that_gave_no_finite_number_are_left_out(self):
        some = pd.DataFrame({"lr": [0.1, 0.2, 0.3], "value": [1.0, np.inf, None]})
        some.loc[3] = (0.4, 2.0)
        assert [row["x"] for row in rows(plots.sweep(some))] == [0.1, 0.4]

    def test_many_parameters_are_drawn_however_many_rows_that_gives(self):
        random = np.random.default_rng(2)
        some = pd.DataFrame({f"p{number}": random.random(500) for number in range(20)})
        some["value"] = some["p0"]
        plot = plots.sweep(some)
        assert "400 of 500 tasks shown" in plot.title
        assert plot._repr_mimebundle_()[0]["image/png"]

    def test_a_hundred_thousand_tasks_are_counted_or_sampled_and_quick(self):
        many = frame(100_000)
        plots.durations(frame(10))  # loads Altair
        started = time.process_time()
        drawn = [plots.KINDS[kind](many) for kind in plots.KINDS]
        # About 1 s here; a plot of every task would take minutes.
        assert time.process_time() - started < 20
        for plot in drawn:
            assert len(rows(plot)) <= 4 * shapes.MOST_BARS
            assert len(json.dumps(plot.spec())) < 500_000
        assert "of 100,000 tasks" in drawn[3].title
        assert "800 of them shown" in drawn[1].title

    def test_wrong_words_are_answered_with_the_nearest_right_ones(self):
        some = frame(5)
        with pytest.raises(ConfigError, match="Did you mean 'durations'"):
            plots.plot(some, "duration")
        with pytest.raises(ConfigError, match="Did you mean 'depth'"):
            plots.sweep(some, x="dept", y="lr")
        with pytest.raises(ConfigError, match="column: got 'duration'"):
            plots.durations(some.drop(columns="duration"))
        with pytest.raises(ConfigError, match="Did you mean 'value'"):
            plots.plot(some, "sweep", valu="value")
        with pytest.raises(ConfigError, match="has no choices"):
            plots.plot(some, "timeline", x="lr")
        with pytest.raises(ConfigError, match="a Batch, or a DataFrame"):
            plots.durations([1, 2, 3])


def test_hostile_names_stay_text_and_nothing_is_fetched():
    hostile = "</svg><script>alert(1)</script>"
    some = frame(20).rename(columns={"lr": hostile}).drop(columns=["depth", "kind"])
    some["worker"] = hostile
    outputs = []
    for plot in (plots.sweep(some), plots.timeline(some)):
        bundle, metadata = plot._repr_mimebundle_()
        assert '"url"' not in json.dumps(bundle[plots.VEGALITE])
        outputs.append(nbformat.v4.new_output("display_data", bundle, metadata=metadata))
    cell = nbformat.v4.new_code_cell("plot", outputs=outputs)
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert html.count('src="data:image/png') == 2
    assert "<script>alert(1)" not in html


def test_without_the_libraries_the_error_says_what_to_install():
    script = (
        "import sys; sys.modules['altair'] = None\n"
        "from omniq_nb.errors import ConfigError\n"
        "try:\n    from omniq_nb import plots\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "plots: got 'no altair'" in done.stdout
    assert 'pip install "omniq_nb[notebook]"' in done.stdout


def test_every_state_has_a_colour():
    assert COLOURS.keys() == set(State)


def test_the_module_is_loaded_when_it_is_first_used():
    assert omniq_nb.plots is plots
    assert "plots" in omniq_nb.__all__
