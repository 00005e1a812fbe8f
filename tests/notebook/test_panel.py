"""The panel by its widgets: what a user clicks and types, and what is then to be seen."""

import asyncio
import contextlib
import threading
import time

import ipywidgets
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from ipywidgets.widgets.widget import _instances

from omniq_nb import OmniQ, OmniQConfig, panel
from omniq_nb.models.task import State, WorkerInfo
from omniq_nb.notebook.panel import activity, backends, drawing, frame
from omniq_nb.notebook.panel.errands import errand
from tests.core.clients import divide
from tests.notebook.gate import GATE, pass_gate

TIMEOUT = 30.0


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        yield client


@contextlib.contextmanager
def opened(oq=None, tab=None):
    """A panel that somebody sees."""
    made = panel(oq)
    try:
        see(made, True)
        if tab is not None:
            go(made, tab)
        yield made
    finally:
        made.close()


def see(made, seen, view="a"):
    made.view.children[0]._handle_custom_msg({"view": view, "seen": seen}, [])


def go(made, tab):
    made.view.children[1].selected_index = frame.TABS.index(tab)
    return made.page(tab)


def typed(form, name, text):
    form._handle_custom_msg({"name": name, "text": text}, [])


def until(true):
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def inside(widget):
    """All widgets in this one."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


# -------------------------------------------------------------------- backends


def test_it_opens_without_a_client_and_says_what_to_do():
    with opened() as made:
        assert made.oq is None
        for tab in frame.TABS[1:]:
            assert go(made, tab) is None
            shown = [w.value for w in inside(made.view) if isinstance(w, ipywidgets.HTML)]
            assert any("Connect first" in text for text in shown)


@pytest.mark.parametrize(
    ("kind", "url"), [("memory", None), ("sqlite", "tasks.db"), ("file", "./folder")]
)
def test_choose_test_connect_and_work(kind, url):
    with opened() as made:
        page = made.page("Backends")
        form = page.forms["task_queue"]
        typed(form, "backend_type", kind)
        if url is not None:
            typed(form, "url", url)
        page.test.click()
        until(lambda: not page.test.disabled)
        assert page.promises.value.count("yes, ") == 4
        page.connect.click()
        until(lambda: made.oq is not None)
        try:
            assert made.oq.config.task_queue_backend.backend_type == kind
            workers = go(made, "Workers")
            workers.start.click()
            batch = made.oq.map(abs, range(-100, 0))
            assert batch.results(timeout=TIMEOUT) == list(range(100, 0, -1))
            live = go(made, "Live")
            until(lambda: ">100<" in live.charts.value)
            explore = go(made, "Explore")
            explore.query.value = "SELECT sum(value)::INT AS total FROM results"
            explore.run.click()
            until(lambda: explore.rows is not None)
            assert explore.rows.page(0, 9) == [["5050"]]
        finally:
            made.oq.close()


def test_what_cannot_work_says_why_under_its_component():
    with opened() as made:
        page = made.page("Backends")
        page.same.value = False
        typed(page.forms["event_storage"], "backend_type", "file")
        typed(page.forms["event_storage"], "url", "/dev/null/x")
        page.test.click()
        until(lambda: not page.test.disabled)
        assert page.promises.value.count("yes, ") == 3
        assert "/dev/null/x" in page.promises.value
        page.connect.click()
        until(lambda: not page.connect.disabled)
        assert made.oq is None
        assert "/dev/null/x" in page._status.view.value


def test_mistakes_are_said_under_the_field_and_nothing_is_offered():
    with opened() as made:
        page = made.page("Backends")
        form = page.forms["task_queue"]
        typed(form, "timeout", "soon")
        assert "got 'soon'" in form.problems["timeout"]
        assert page.connect.disabled and page.test.disabled and page.save.disabled
        assert "got 'soon'" in page.yaml.text
        typed(form, "timeout", "5")
        assert form.problems == {}
        assert not page.connect.disabled
        assert "timeout: 5.0" in page.yaml.text
        assert "sqlite(timeout=5.0)" in page.python.text


def test_all_the_same_or_each_its_own():
    with opened() as made:
        page = made.page("Backends")
        assert page.same.value
        assert [form.layout.display for form in page.forms.values()] == [None, *["none"] * 3]
        assert page.forms["task_queue"].spec["legend"] == "all four components"
        page.same.value = False
        assert [form.layout.display for form in page.forms.values()] == [None] * 4
        typed(page.forms["result_storage"], "backend_type", "memory")
        assert "result_storage_backend" in page.yaml.text
        assert "result_storage.memory()" in page.python.text
        typed(page.forms["result_storage"], "backend_type", "like task_queue")
        assert page.forms["result_storage"].spec["fields"] == []
        assert "As the task queue" in page.forms["result_storage"].spec["about"]


def test_save_and_load(tmp_path):
    config = OmniQConfig(
        task_queue_backend="sqlite:///a.db", event_storage_backend="./e", retry_attempts=2
    )
    config.to_yaml(tmp_path / "mine.yaml")
    with opened() as made:
        page = made.page("Backends")
        page.file.value = "mine.yaml"
        page.load.click()
        assert page.forms["event_storage"].shown == {"url": "./e"}
        assert not page.same.value
        page.file.value = "copy.yaml"
        page.save.click()
        assert OmniQConfig.from_yaml("copy.yaml") == config
        page.file.value = "none.yaml"
        page.load.click()
        assert "none.yaml" in page._status.view.value


def test_a_password_is_in_no_state_and_no_text():
    with opened() as made:
        page = made.page("Backends")
        form = page.forms["task_queue"]
        typed(form, "backend_type", "redis")
        for text in ("h", "hunter", "hunter2"):
            typed(form, "password", text)
        for text in ("redis://me:hun", "redis://me:hunter2@", "redis://me:hunter2@host/0"):
            typed(form, "url", text)
        assert set(form.held) == {"password", "url"}
        state = repr([widget.get_state() for widget in inside(made.view)])
        assert "hunter" not in state
        assert "hunter" not in repr(made._repr_mimebundle_()) + repr(made)
        assert "${VAR}" in page.yaml.text  # how to write it instead
        assert page.save.disabled
        assert page.draft.config().backend("task_queue").options().password == "hunter2"
        typed(form, "url", "redis://host/0")
        typed(form, "password", "${REDIS_PASSWORD}")
        assert "password: ${REDIS_PASSWORD}" in page.yaml.text
        assert form.shown["password"] == "${REDIS_PASSWORD}"


def test_a_client_of_the_panel_is_replaced_and_a_users_own_is_not():
    with OmniQ("memory://") as own, opened(own) as made:
        page = go(made, "Backends")
        assert page.forms["task_queue"].spec["chosen"] == "memory"
        page.connect.click()
        until(lambda: made.oq is not own)
        first = made.oq
        until(lambda: not page.connect.disabled)
        page.connect.click()
        until(lambda: made.oq is not first)
        until(lambda: first._caller.closed)
        assert not own._caller.closed
        made.oq.close()


# -------------------------------------------------------------------- workers


def test_start_scale_and_stop(oq):
    with opened(oq, "Workers") as made:
        page = made.page("Workers")
        until(lambda: "No worker" in page.table.value)
        page.number.value, page.queues.value = 2, "fast, slow"
        page.start.click()
        until(lambda: "running" in page.table.value)
        assert "fast, slow" in page.table.value and "0 of 2" in page.table.value
        until(lambda: "MB" in page.table.value)
        page.number.value = 5
        page.scale.click()
        until(lambda: "0 of 5" in page.table.value)
        page.stop.click()
        until(lambda: "stopped" in page.table.value)
        assert "All thread workers have stopped" in page._status.view.value


def test_what_a_worker_works_on_is_named(oq):
    GATE.clear()
    with opened(oq, "Workers") as made:
        page = made.page("Workers")
        page.number.value = 7
        page.start.click()
        batch = oq.map(pass_gate, range(7))
        until(lambda: "7 of 7" in page.table.value and page.table.value.count("pass_gate") == 5)
        assert "and 2 more" in page.table.value
        GATE.set()
        batch.wait(TIMEOUT)
        until(lambda: "0 of 7" in page.table.value and "pass_gate" not in page.table.value)


def test_a_worker_that_is_silent_or_dead_is_told_from_one_that_lives(oq):
    now = time.time()
    for name, age in (("lives", 0), ("silent", 8), ("dead", 3000)):
        info = WorkerInfo(id=name, host="<b>h", pid=1, started_at=1.0, heartbeat_at=now - age)
        oq._caller.loop.call(oq._caller.engine.stores.task_queue.workers(info))
    with opened(oq, "Workers") as made:
        page = made.page("Workers")
        until(lambda: "silent for" in page.table.value)
        assert "dead" in page.table.value and "running" in page.table.value
        assert "<b>h" not in page.table.value  # escaped


def test_a_wrong_wish_is_said_and_nothing_happens(oq):
    with opened(oq, "Workers") as made:
        page = made.page("Workers")
        page.number.max = 1000
        page.number.value = 1000
        page.start.click()
        until(lambda: "OMNIQ_MAX_WORKERS" in page._status.view.value)
        until(lambda: not page.start.disabled)
        assert oq.workers.list() == []


def test_every_kind_of_worker_is_offered(oq):
    from omniq_nb.core.executors import EXECUTORS
    from omniq_nb.core.launch import LAUNCHERS

    with opened(oq, "Workers") as made:
        assert set(made.page("Workers").kind.options) >= {*EXECUTORS, *LAUNCHERS}


def test_background_workers_are_started_stopped_and_their_log_is_read():
    with OmniQ("sqlite:///tasks.db") as oq, opened(oq, "Workers") as made:
        page = made.page("Workers")
        page.kind.value, page.number.value = "background", 1
        page.start.click()
        until(lambda: len(page.log_of.options) == 2)
        page.log_of.index = 1
        until(lambda: "<pre" in page.log.value)
        page.stop.click()
        until(lambda: "All background workers have stopped" in page._status.view.value)
        assert oq.workers.list()[-1].state == "stopped"


# -------------------------------------------------------------------- live


def test_failures_are_grouped_and_queued_again(oq):
    oq.workers.start(2)
    oq.map(divide, [1] * 30, [0] * 30).wait(TIMEOUT)
    oq.map(divide, [1] * 5, ["x"] * 5).wait(TIMEOUT)
    oq.workers.stop()
    with opened(oq, "Live") as made:
        page = made.page("Live")
        until(lambda: len(page.failures.options) == 2)
        assert page.failures.options[0].startswith("30: ZeroDivisionError")
        assert "TypeError" in page.failures.options[1]
        page.failures.index = 1
        page.requeue.click()
        until(lambda: "5 tasks are queued again" in page._status.view.value)
        until(lambda: len(page.failures.options) == 1)
        assert oq.counts()["default"][State.QUEUED] == 5


def test_what_is_going_on_is_drawn(oq):
    GATE.clear()
    oq.workers.start(3)
    oq.map(abs, range(50)).wait(TIMEOUT)
    waiting = oq.map(pass_gate, range(3))
    with opened(oq, "Live") as made:
        page = made.page("Live")
        until(lambda: f'fill="{drawing.COLOURS[State.RUNNING]}"' in page.charts.value)
        shown = page.charts.value
        for title in ("Throughput", "Waited from submitting to start", "Who ran what"):
            assert title in shown
        (worker,) = oq.workers.list()
        assert worker.id in shown
        GATE.set()
        waiting.wait(TIMEOUT)


def results(rows, now, spread=300.0):
    """As many results as a busy queue gives, the newest first."""
    ends = now - np.sort(np.random.default_rng(0).random(rows)) * spread

    def moments(seconds):
        return pa.array((seconds * 1e6).astype("int64"), pa.timestamp("us", "UTC"))

    return pa.table(
        {
            "worker": [f"worker-{n % 40}" for n in range(rows)],
            "state": ["failed" if n % 10 == 0 else "succeeded" for n in range(rows)],
            "created_at": moments(ends - 3.0),
            "started_at": moments(ends - 1.0),
            "finished_at": moments(ends),
        }
    )


def test_a_view_is_no_larger_for_more_tasks():
    now = time.time()
    sizes = []
    for rows in (activity.NEWEST, activity.NEWEST // 4):
        seen = activity.recent(results(rows, now), None, now)
        shown = drawing.drawn(drawing.Activity(queues=(), recent=seen))
        sizes.append(len(shown))
        assert len(seen.bars) <= activity.BARS
        assert len({bar.worker for bar in seen.bars}) <= activity.WORKERS
        assert len(msgspec.json.encode(seen)) < 100_000
    assert max(sizes) < 100_000


def test_rates_and_waits_are_those_of_the_tasks():
    now = time.time()
    seen = activity.recent(results(3000, now), None, now)
    width = activity.SPAN / activity.BINS
    assert seen.span == activity.SPAN
    total = sum(sum(rates) for _, rates in seen.rates) * width
    assert total == pytest.approx(3000, rel=0.02)  # the oldest part is not whole
    share = {state: sum(rates) for state, rates in seen.rates}
    assert share[State.SUCCEEDED] / share[State.FAILED] == pytest.approx(9, rel=0.2)
    assert {wait for wait in seen.waits if wait is not None} == {(2.0, 2.0)}


def test_with_very_many_tasks_less_time_is_looked_back():
    now = time.time()
    seen = activity.recent(results(activity.NEWEST, now, spread=7.0), None, now)
    assert 6.9 < seen.span < 7.1


def test_nothing_at_all_is_said_in_words():
    now = time.time()
    assert activity.recent(results(0, now), None, now) is None
    assert "No tasks yet" in drawing.drawn(drawing.Activity(queues=(), recent=None))


# -------------------------------------------------------------------- explore


def test_examples_run_on_empty_stores(oq):
    with opened(oq, "Explore") as made:
        page = made.page("Explore")
        for title in page.examples.options:
            page.examples.value = title
            page.rows = None
            page.run.click()
            until(lambda: page.run.description == "Run")
            assert page._status.view.value == ""
            assert page.rows.total == 0


def test_query_sort_filter_plot_export(oq, tmp_path):
    oq.workers.start(2)
    oq.map(abs, range(200), name="b").wait(TIMEOUT)
    with opened(oq, "Explore") as made:
        page = made.page("Explore")
        page.query.value = "SELECT nothing_of_the_kind FROM results"
        page.run.click()
        until(lambda: "nothing_of_the_kind" in page._status.view.value)
        assert page.rows is None
        page.query.value = "SELECT value::INT AS v, finished_at FROM results"
        page.run.click()
        until(lambda: page.rows is not None)
        sent = []
        page.grid.send = sent.append
        page.grid._handle_custom_msg({"ask": "rows", "first": 50, "turn": 7}, [])
        assert sent[-1]["turn"] == 7 and len(sent[-1]["rows"]) == page.grid.page_rows
        page.grid._handle_custom_msg({"ask": "sort", "column": "v", "descending": True}, [])
        until(lambda: page.grid.order == ["v", True])
        page.filter.value = "v < 100"
        until(lambda: page.grid.total == 100)
        page.grid._handle_custom_msg({"ask": "rows", "first": 0, "turn": 8}, [])
        assert [row[0] for row in sent[-1]["rows"][:2]] == ["99", "98"]
        assert "WHERE v < 100" in page.code.text and 'ORDER BY "v" DESC' in page.code.text
        page.column.value = "v"
        page.histogram.click()
        until(lambda: page.plot.outputs)
        assert "image/png" in page.plot.outputs[0]["data"]
        page.timeline.click()
        until(lambda: "moments" in page._status.view.value)
        page.file.value = "out.csv"
        page.export.click()
        until(lambda: "100 rows are in" in page._status.view.value)
        assert (tmp_path / "out.csv").read_text().startswith('"v","finished_at"\n99,')
        page.filter.value = "nonsense"
        until(lambda: "nonsense" in page._status.view.value)
        assert page.grid.total == 100  # what was there stays


def test_a_query_that_takes_too_long_is_cancelled(oq):
    with opened(oq, "Explore") as made:
        page = made.page("Explore")
        page.query.value = "SELECT sum(hash(range)) FROM range(10000000000000)"
        page.run.click()
        assert page.run.description == "Running…" and not page.cancel.disabled
        page.cancel.click()
        until(lambda: page.run.description == "Run")
        assert "Cancelled" in page._status.view.value
        page.query.value = "SELECT 1 AS one"
        page.run.click()
        until(lambda: page.rows is not None)
        assert page.rows.page(0, 1) == [["1"]]


# -------------------------------------------------------------------- life


def test_only_the_open_tab_that_is_seen_is_kept_up_to_date(oq):
    made = panel(oq)
    go(made, "Workers")
    assert made.watches == 0  # nobody sees it yet
    see(made, True)
    assert made.watches == 3  # the buttons, the table and the log
    go(made, "Live")
    assert made.watches == 3
    go(made, "Explore")
    see(made, True, "another view")
    see(made, False)
    assert made.watches > 0
    see(made, False, "another view")
    assert made.watches == 0
    see(made, True)
    assert made.watches > 0
    made.close()
    assert made.watches == 0
    see_nothing = made._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in see_nothing


def test_a_front_end_that_fell_silent_ends_the_watches(oq, monkeypatch):
    monkeypatch.setattr(frame, "CHECK_EVERY", 0.2)
    with opened(oq, "Workers") as made:
        assert made.watches > 0
        monkeypatch.setattr("omniq_nb.notebook.panel.pieces.PATIENCE", 0.0)
        until(lambda: made.watches == 0)


def test_silence_means_nothing_while_a_cell_runs(oq, monkeypatch):
    monkeypatch.setattr(frame, "CHECK_EVERY", 0.2)
    monkeypatch.setattr(frame, "_busy", lambda: True)
    with opened(oq, "Workers") as made:
        monkeypatch.setattr("omniq_nb.notebook.panel.pieces.PATIENCE", 0.0)
        page = made.page("Workers")
        until(lambda: "No worker" in page.table.value)
        oq.workers.start(1)
        until(lambda: "running" in page.table.value)
        assert made.watches > 0


def test_closing_leaves_no_widget_behind(oq):
    with opened(oq):
        pass
    before = set(_instances)
    for _ in range(3):
        with opened(oq) as made:
            for tab in frame.TABS:
                go(made, tab)
    assert {repr(_instances[left]) for left in set(_instances) - before} == set()


def test_a_closed_client_ends_the_watches():
    with OmniQ("memory://") as oq:
        made = panel(oq)
        see(made, True)
        assert made.watches > 0
    until(lambda: made.watches == 0)
    made.close()


def test_a_click_does_not_wait(monkeypatch):
    asked, free = threading.Event(), threading.Event()

    async def slow(config):
        asked.set()
        await asyncio.to_thread(free.wait, TIMEOUT)
        return []

    monkeypatch.setattr(backends, "probe", slow)
    with opened() as made:
        page = made.page("Backends")
        page.test.click()
        assert asked.wait(TIMEOUT)
        assert page.test.disabled and page.test.description == "Testing…"
        free.set()
        until(lambda: not page.test.disabled)


def test_a_defect_is_said_and_logged(caplog):
    said = []

    async def broken():
        raise RuntimeError("no luck")

    errand(broken(), lambda _: None, said.append).result(TIMEOUT)
    assert said == ["RuntimeError: no luck"]
    assert "met a defect" in caplog.text


def test_without_the_libraries_it_says_what_to_install(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("omniq_nb.notebook.panel.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    from omniq_nb.errors import ConfigError

    with pytest.raises(ConfigError, match=r"pip install \"omniq_nb\[notebook\]\""):
        panel()
