"""`%%task` in a real kernel: what appears under which cell, and when."""

import re
import time

import pytest
from jupyter_client.manager import start_new_kernel

from omniq_nb import OmniQ
from tests.notebook.kernels import Page

pytestmark = pytest.mark.xdist_group("task kernel")

GATE = """
import pathlib, time
def pass_gate(number):
    while not pathlib.Path(gate).with_name(f"gate{number}").exists():
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def manager(kernel):
    return kernel[0]


@pytest.fixture
def page(kernel, tmp_path):
    page = Page(kernel[1])
    page.run("%reset -f\n%load_ext omniq_nb\n%omniq connect memory://\noq.workers.start(2);")
    page.run(f"gate = {str(tmp_path / 'gate')!r}\n{GATE}")
    page.open_gate = lambda number: (tmp_path / f"gate{number}").touch()
    yield page
    for number in range(5):
        page.open_gate(number)
    page.run("%omniq disconnect")


def text_of(message):
    return message["content"].get("data", {}).get("text/plain", "")


def shows(text):
    return lambda message: text in text_of(message)


def seen(page, text):
    """The first message that shows this text, whether it came by now or not."""
    wanted = shows(text)
    come = [message for message in page.messages if wanted(message)]
    return come[0] if come else page.until(wanted)


def until_idle(page, sent):
    """Take messages until a cell is over. The error that it ended with."""
    page.until(
        lambda message: (
            message["parent_header"].get("msg_id") == sent
            and message["content"].get("execution_state") == "idle"
        )
    )
    (error,) = [message["content"] for message in page.messages if message["msg_type"] == "error"]
    return error


def display_id(message):
    return message["content"]["transient"]["display_id"]


def test_output_and_value_appear_live_under_the_cell_that_submitted(page):
    page.run("%%task fit -o best\nprint('one')\npass_gate(1)\nprint('two')\nbest = 5\n{best: 6}")
    card, value = page.displays
    first = page.displays[card][0]
    assert first["msg_type"] == "display_data"
    seen(page, "\none")
    assert page.run("print('other')") == "other\n"
    page.open_gate(1)
    over = seen(page, "succeeded")
    assert display_id(over) == card
    assert "one\ntwo" in text_of(over)
    assert "best came back." in text_of(over)
    assert page.run("print(best, fit.result())") == "5 {5: 6}\n"
    assert display_id(seen(page, "{5: 6}")) == value
    assert list(page.displays) == [card, value]
    # Nothing else was displayed or printed by anybody.
    kinds = [message["msg_type"] for message in page.messages]
    printed = [m["content"]["text"] for m in page.messages if m["msg_type"] == "stream"]
    assert "".join(printed) == "other\n5 {5: 6}\n"
    assert "execute_result" not in kinds


def test_what_the_cell_displays_goes_nowhere_else(page):
    page.run("%%task\ndisplay({'a': 1})\npass_gate(1)\n1;")
    shown = seen(page, "{'a': 1}")
    assert list(page.displays) == [display_id(shown)]
    page.open_gate(1)
    seen(page, "succeeded")
    assert len(page.displays) == 1


def test_values_that_display_themselves_stay_under_their_cell(page):
    page.run(
        "%%task\nclass Loud:\n    def _ipython_display_(self):\n"
        "        display({'text/plain': 'loud'}, raw=True)\nLoud()"
    )
    loud = seen(page, "loud")
    assert loud["msg_type"] == "update_display_data"
    assert display_id(loud) == list(page.displays)[1]


def test_a_cell_that_is_run_again_replaces_its_run_before(page):
    page.run("%%task\npass_gate(1)\n'first'", cell_id="A")
    seen(page, "running")
    page.run("%%task\npass_gate(2)\n'second'", cell_id="A")
    first, _, second, _ = page.displays
    assert "cancelled" in text_of(page.displays[first][-1])
    assert "The run before was cancelled." in text_of(page.displays[second][0])
    page.run("%%task\npass_gate(2)\n'second'", cell_id="B")
    assert "cancelled" not in text_of(page.displays[list(page.displays)[4]][0])
    page.open_gate(1)
    page.open_gate(2)
    seen(page, "'second'")
    assert page.run("print(oq.counts())").count("'cancelled'") == 1


def test_an_interrupt_leaves_the_work_alive(page, manager):
    page.run("%%task fit\nprint('working')\npass_gate(1)\n'done'")
    seen(page, "working")
    sent = page.send("print('waiting', flush=True)\nfit.result()")
    page.until(lambda message: message["content"].get("text") == "waiting\n")
    manager.interrupt_kernel()
    assert until_idle(page, sent)["ename"] == "KeyboardInterrupt"
    page.open_gate(1)
    seen(page, "succeeded")
    assert page.run("print(fit.result())") == "done\n"


def test_an_error_is_the_traceback_of_the_cell(page):
    page.run("def ratio(a, b):\n    return a / b")
    page.run("%%task\nx = 0\n\nratio(1, x)")
    failed = seen(page, "failed")
    face = text_of(failed)
    assert 'File "<cell ' in face
    assert "line 4, in <module>\n    ratio(1, x)\n" in face
    assert "ZeroDivisionError: division by zero" in face
    assert "omniq_nb" not in face


def test_without_a_worker_the_card_says_what_to_do(page):
    page.run("%%task --queue lonely\n1")
    (card, _) = page.cards
    assert (
        "no worker serves the queue 'lonely': oq.workers.start(2, queues=['lonely'])"
        in (card["text/plain"])
    )
    assert "lonely" in card["text/html"]


def test_the_card_outlives_the_client(page):
    page.run("%%task --queue lonely\n1")
    page.run("oq.close()")
    assert "the client was closed" in page.cards[0]["text/html"]
    page.run("%omniq connect memory://")


def test_messages_of_a_flood_are_few_and_small(page):
    started = time.monotonic()
    page.run(
        "%%task\nimport time\nend = time.monotonic() + 3\n"
        "while time.monotonic() < end: print('x' * 1000)\n"
    )
    over = seen(page, "succeeded")
    updates = [m for m in page.messages if m["msg_type"] == "update_display_data"]
    assert len(updates) <= 5 * (time.monotonic() - started) + 2
    assert all(len(text_of(m)) < 10_000 for m in updates[:-1])
    assert len(text_of(over)) < 70_000


@pytest.mark.parametrize(
    "cell", ["%omniq connect nothing://", "import omniq_nb\noq.task(timeout=-1)(print)"]
)
def test_errors_of_ours_are_one_message(page, cell):
    error = until_idle(page, page.send(cell))
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error["traceback"]))
    assert "ConfigError: " in text
    assert "Traceback" not in text
    assert "omniq_nb/" not in text
    assert len(text.splitlines()) <= 3


def test_a_cell_run_again_replaces_the_run_of_a_kernel_that_is_gone(page, tmp_path):
    """The old kernel's task still runs, on somebody else's worker."""
    living = page
    begin = (
        f"%load_ext omniq_nb\n%omniq connect sqlite:///{tmp_path / 'tasks.db'}\n"
        f"gate = {str(tmp_path / 'gate')!r}\n{GATE}"
    )
    cell = "%%task\nprint('working')\nimport omniq_nb\nwhile True:\n    pass_gate(0)\n"
    cell += "    omniq_nb.current_task().check()\n"
    lonely = "%%task --queue lonely\n2"
    (tmp_path / "gate0").touch()
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        page = Page(client)
        page.run(begin)
        with OmniQ(f"sqlite:///{tmp_path / 'tasks.db'}") as elsewhere:
            elsewhere.workers.start(1)
            page.run(cell, cell_id="A")
            seen(page, "running")
            (first,) = elsewhere.tasks.df().task_id
            page.run("import socket; socket.gethostname = lambda: 'lab-7'")
            page.run(lonely, cell_id="C")
            manager.restart_kernel()
            client.wait_for_ready(timeout=60)
            page.run(begin)
            page.run(cell, cell_id="A")
            assert elsewhere.handle(first).status() == "cancelled"
            card = list(page.displays.values())[-1][-1]
            assert "The run before, of an earlier kernel, was cancelled." in text_of(card)
            page.run(lonely, cell_id="C")
            card = list(page.displays.values())[-2][0]  # the last one is its value's
            assert "This cell was run on lab-7, too, and is queued there" in text_of(card)
            page.run("%%task\n1", cell_id="B")
            assert page.run("print(oq.counts())").count("'cancelled': 1") == 1
            page.run(cell, cell_id="A")
            assert page.run("print(oq.counts())").count("'cancelled': 2") == 1
            states = elsewhere.counts()
            living.run(begin)
            living.run(cell, cell_id="A")
            card = list(living.displays.values())[-1][0]
            assert "This cell was run in another kernel, too, which still lives" in text_of(card)
            assert elsewhere.counts()["default"]["cancelled"] == states["default"]["cancelled"]
            page.run("oq.cancel(*oq.tasks.df().task_id)")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
