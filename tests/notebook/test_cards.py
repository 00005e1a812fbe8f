"""Cards as a user meets them: static faces anywhere, live ones under the cell of a real kernel."""

import subprocess
import sys
import time
from html.parser import HTMLParser

import nbclient
import nbformat
import pytest
from nbconvert import HTMLExporter

from omniq_nb import OmniQ, OmniQConfig, current_task
from omniq_nb.core.engine import Engine
from omniq_nb.models.task import State, Task, WorkerInfo
from omniq_nb.notebook import gauges
from tests.core.clients import add, divide
from tests.notebook.gate import GATE, pass_gate

HOSTILE = "<img src=x onerror=alert(1)>\"'</style><script>alert(2)</script>"


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        yield client


def html_of(thing):
    return thing._repr_mimebundle_()["text/html"]


class Tags(HTMLParser):
    """The tags of a page and their attributes; fails where they do not nest."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self._open = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


class TestStaticFaces:
    def test_a_batch_says_how_far_it_is_in_text_and_html(self, oq):
        oq.workers.start(2)
        batch = oq.map(divide, [1, 2, 3, 4], [1, 0, 1, 0], name="halves")
        batch.wait(timeout=30)
        said = str(batch)
        assert "halves" in said
        assert "100 %" in said
        assert "4 of 4 tasks: 2 succeeded, 2 failed" in said
        assert "2 failed: ZeroDivisionError: division by zero" in said
        assert max(map(len, said.splitlines())) <= 100
        assert sorted(map(repr, batch.counts().items())) == ["('failed', 2)", "('succeeded', 2)"]
        html = html_of(batch)
        (bar,) = (attributes for tag, attributes in Tags(html).found if "role" in attributes)
        assert bar["role"] == "progressbar"
        assert (bar["aria-valuenow"], bar["aria-valuemax"]) == ("4", "4")
        assert bar["aria-valuetext"] == "4 of 4 tasks: 2 succeeded, 2 failed"

    def test_a_batch_that_nothing_can_run_says_what_to_do(self, oq):
        batch = oq.map(add, [1], [2])
        hint = "no worker serves the queue 'default': oq.workers.start(2)"
        assert hint in str(batch)
        assert "<code>oq.workers.start(2)</code>" in html_of(batch)
        other = oq.task(queue="gpu")(add).map([1], [2])
        oq.workers.start(1)
        assert "oq.workers.start(2, queues=['gpu'])" in str(other)
        batch.wait(timeout=30)
        assert "no worker" not in str(batch)

    def test_a_handle_shows_its_error_and_the_end_of_its_output(self, oq):
        def talk():
            for line in range(100):
                print(f"line {line}")
            raise ValueError("no more to say")

        oq.workers.start(1)
        handle = oq.submit(talk)
        handle.exception(timeout=30)
        said = str(handle)
        assert "talk  failed  attempt 1" in said
        assert "ValueError: no more to say" in said
        assert "line 99" in said
        assert "line 79\n" not in said
        assert "line 99" in html_of(handle)

    def test_a_running_task_shows_what_it_says_of_its_progress(self, oq):
        GATE.clear()

        def work():
            current_task().progress(3, 10, "epoch 3")
            pass_gate(0)

        oq.workers.start(1)
        handle = oq.submit(work)
        deadline = time.monotonic() + 30
        while "3 of 10: epoch 3" not in str(handle):
            assert time.monotonic() < deadline, str(handle)
            time.sleep(0.02)
        bar = next(a for _, a in Tags(html_of(handle)).found if a.get("role") == "progressbar")
        assert bar["aria-valuetext"] == "3 of 10: epoch 3"
        GATE.set()
        handle.result(timeout=30)
        assert "epoch" not in str(handle)

    def test_a_task_that_was_purged_is_called_unknown(self, oq):
        assert "no task of this id is known" in str(oq.handle("never"))
        assert "unknown" in html_of(oq.handle("never"))

    def test_workers_and_the_client_show_what_is_there(self, oq):
        assert "oq.workers.start(2)" in str(oq.workers)
        assert "oq.workers.start(2)" in html_of(oq.workers)
        oq.workers.start(3)
        oq.submit(add, 1, 2).result(timeout=30)
        assert "thread  default  3        running" in str(oq.workers)
        said = str(oq)
        assert "task queue        memory   memory://" in said
        assert "default  1 succeeded" in said
        for thing in (oq, oq.workers):
            Tags(html_of(thing))
            assert "last change" in html_of(thing)
        assert "last change" not in html_of(oq.config)

    def test_names_errors_and_output_are_escaped_everywhere(self, oq):
        def fail(text):
            print(text)
            raise ValueError(text)

        oq.workers.start(1, queues=[HOSTILE])
        batch = oq.task(queue=HOSTILE, name=HOSTILE)(fail).map([HOSTILE], name=HOSTILE)
        batch.wait(timeout=30)
        waiting = oq.task(queue=HOSTILE + "2")(fail).map([1], name=HOSTILE + "2")
        for thing in (batch, batch[0], waiting, waiting[0], oq, oq.workers):
            html = html_of(thing)
            assert "<img" not in html
            assert "<script" not in html
            assert html.count("</style>") == 1
            Tags(html)

    def test_secrets_are_never_shown(self):
        config = OmniQConfig(
            task_queue_backend="postgres://ada:hunter2@db.example.org/omniq",
            result_storage_backend={
                "backend_type": "s3",
                "config": {"bucket": "lab", "secret": "hunter2"},
            },
            event_storage_backend={"backend_type": "redis", "url": "redis://:${NOT_SET}@host"},
        )
        for face in config._repr_mimebundle_().values():
            assert "hunter2" not in face
            assert "db.example.org" in face
            assert "lab" in face
            assert "${NOT_SET}" in face

    def test_a_closed_client_still_has_faces(self):
        with OmniQ("memory://") as oq:
            batch = oq.map(add, [1], [2], name="left")
            handle = batch[0]
        for thing in (batch, handle, oq.workers, oq):
            faces = thing._repr_mimebundle_()
            assert faces["text/plain"]
            Tags(faces["text/html"])


class Queue:
    """A task queue that counts what it is asked."""

    def __init__(self, states):
        self.states = states
        self.asked = 0
        self.at_once = 0

    async def get(self, ids):
        self.asked += len(ids)
        self.at_once = max(self.at_once, len(ids))
        return [
            Task(id=task_id, name="f", state=self.states[task_id], started_at=1.0, finished_at=2.0)
            for task_id in ids
        ]

    async def workers(self):
        return [WorkerInfo(id="w", heartbeat_at=time.time())]


class Inside:
    """As much of an engine as a tally needs."""

    unserved = Engine.unserved

    def __init__(self, queue):
        self.stores = self
        self.task_queue = queue


class TestTally:
    async def test_looks_at_a_large_batch_a_bounded_piece_at_a_time_and_ends_exact(self):
        ids = [str(number) for number in range(100_000)]
        queue = Queue(dict.fromkeys(ids, State.QUEUED))
        tally = gauges.Tally(Inside(queue), "large", ids)
        for done in range(0, 100_001, 10_000):
            queue.states.update(dict.fromkeys(ids[:done], State.SUCCEEDED))
            gauge = await tally.gauge()
            assert gauge.ended <= done
        assert queue.at_once <= gauges.AT_ONCE
        for _ in range(100):
            if gauge.over:
                break
            gauge = await tally.gauge()
        assert gauge.counts == ((State.SUCCEEDED, 100_000),)
        queue.asked = 0
        assert (await tally.gauge()).over
        assert queue.asked == 0  # what succeeded is not asked about again

    async def test_notices_what_ends_out_of_order_and_what_is_requeued(self):
        ids = [str(number) for number in range(2000)]
        queue = Queue(dict.fromkeys(ids, State.QUEUED))
        tally = gauges.Tally(Inside(queue), "some", ids)
        await tally.gauge()
        queue.states["1999"] = State.FAILED
        assert dict((await tally.gauge(fully=True)).counts)[State.FAILED] == 1
        queue.states["1999"] = State.RUNNING
        gauge = await tally.gauge(fully=True)
        assert State.FAILED not in dict(gauge.counts)
        assert gauge.errors == () or gauge.errors[0][1] == 0

    def test_a_worker_that_is_not_heard_of_is_silent_then_dead(self):
        beat = WorkerInfo(id="w", heartbeat_at=1000.0)
        assert gauges.health(beat, 1003.0) == "running"
        assert gauges.health(beat, 1010.0) == "silent for 10 s"
        for gone in ("dead", "stopped"):
            beat.state = gone
            assert gauges.health(beat, 1040.0) == gone


SETUP = """
import threading
from omniq_nb import OmniQ
from omniq_nb.notebook import live
from tests.notebook.gate import GATE, pass_gate
oq = OmniQ("memory://")
"""


class TestLiveCards:
    def test_a_card_is_updated_in_place_and_ends_with_its_batch(self, page):
        page.run(SETUP)
        page.run("sweep = oq.map(pass_gate, range(20), name='sweep')\nsweep")
        (first,) = page.cards
        assert "0 of 20" in first["text/plain"]
        assert "no worker serves" in first["text/plain"]
        page.run("w = oq.workers.start(4); GATE.set(); r = sweep.results()")
        (last,) = page.cards  # before the cell that waits is over
        assert "100 %" in last["text/plain"]
        assert "20 succeeded" in last["text/html"]
        page.run("assert live.open_views(oq) == 0")

    def test_five_messages_a_second_at_most_while_ten_thousand_tasks_run(self, page):
        page.run(SETUP)
        page.run("sweep = oq.map(abs, range(10_000), name='sweep'); sweep")
        page.run("oq")
        page.run("w = oq.workers.start(4); d = sweep.wait()")
        page.until_shown("10,000 succeeded")
        for messages in page.displays.values():
            # The first one is the cell's; a quick run may be over before the second.
            sent = [message["header"]["date"] for message in messages]
            seconds = (sent[-1] - sent[0]).total_seconds()
            assert len(sent) <= 5 * seconds + 3
        assert not any(message["msg_type"].startswith("comm") for message in page.messages)

    def test_running_the_cell_again_ends_the_card_that_it_showed(self, page):
        page.run(SETUP)
        page.run("sweep = oq.map(pass_gate, range(5), name='sweep')")
        for _ in range(5):
            page.run("sweep", cell_id="one")
        page.run("sweep", cell_id="two")
        assert page.run("print(live.open_views(oq))") == "2\n"
        page.run("print('no card any more')", cell_id="one")
        assert page.run("print(live.open_views(oq))") == "1\n"

    def test_a_thousand_cards_leave_a_few_open_ones_and_none_after_close(self, page):
        page.run(SETUP)
        page.run("sweep = oq.map(pass_gate, range(3), name='sweep')")
        page.run("for _ in range(1000): display(sweep)")
        assert int(page.run("print(live.open_views(oq))")) == 30
        page.run("oq.close()")
        assert page.run("print(live.open_views(oq))") == "0\n"

    def test_waiting_for_long_shows_the_card_and_an_interrupt_leaves_the_work(self, page):
        page.run(SETUP)
        page.run("w = oq.workers.start(2); sweep = oq.map(pass_gate, range(4), name='sweep')")
        printed = page.run(
            "import _thread, time\n"
            "def interrupt():\n"
            "    while not live.open_views(oq):\n        time.sleep(0.01)\n"
            "    _thread.interrupt_main()\n"
            "threading.Thread(target=interrupt).start()\n"
            "try:\n    sweep.wait()\n"
            "except KeyboardInterrupt:\n    print('interrupted')"
        )
        assert "Only the waiting was stopped: 4 of 4 tasks go on." in printed
        assert "interrupted" in printed
        assert len(page.cards) == 1
        assert "0 of 4" in page.cards[0]["text/plain"]
        assert page.run("GATE.set(); print(sweep.results())") == "[0, 1, 2, 3]\n"

    def test_a_saved_notebook_holds_the_last_face_and_nbconvert_shows_it(self, tmp_path):
        cells = [
            SETUP + "GATE.set()",
            "sweep = oq.map(pass_gate, range(30), name='sweep-1')\nsweep",
            "info = oq.workers.start(2)\nvalues = sweep.results()",
            "oq.config",
        ]
        notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
        nbclient.NotebookClient(notebook, timeout=60).execute()
        (output,) = notebook.cells[1].outputs
        assert "30 succeeded" in output.data["text/plain"]
        assert not any("widget" in kind for kind in output.data)
        html, _ = HTMLExporter().from_notebook_node(notebook)
        assert "30 succeeded" in html
        assert 'role="progressbar"' in html


def test_a_terminal_ipython_shows_the_text():
    script = (
        "from omniq_nb import OmniQ\noq = OmniQ('memory://')\noq.map(abs, [1], name='one')\nexit\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--quick"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "0 of 1 task: 1 queued" in done.stdout
