"""The panel in a real kernel: what is sent to the page, and when."""

import json

import pytest

SECRET = "hunter2"

OPEN = """
from omniq_nb import OmniQ, panel
from omniq_nb.notebook.panel import frame
p = panel({client})
p
"""


def say(page, model, content):
    """What the page tells a widget."""
    data = {"method": "custom", "content": content}
    message = page._client.session.msg("comm_msg", {"comm_id": model, "data": data})
    page._client.shell_channel.send(message)


def model(page, expression):
    return page.run(f"print(({expression}).model_id)").strip()


def show(page, client="", cell_id="cell-1"):
    """Open a panel, and see it."""
    page.run(OPEN.format(client=client), cell_id=cell_id)
    say(page, model(page, "p.view.children[0]"), {"view": "v", "seen": True})


def comms(page, kind):
    return [message for message in page.messages if message["msg_type"] == kind]


def test_the_panel_is_a_widget_with_a_static_face(page):
    show(page)
    (shown,) = [m for m in page.messages if m["msg_type"] == "execute_result"]
    data = shown["content"]["data"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "task queue" in data["text/html"]


def test_nothing_that_was_typed_as_a_secret_ever_leaves_the_kernel(page):
    show(page)
    form = model(page, 'p.page("Backends").forms["task_queue"]')
    say(page, form, {"name": "backend_type", "text": "postgres"})
    for length in range(1, len(SECRET) + 1):
        say(page, form, {"name": "password", "text": SECRET[:length]})
    for url in (f"postgresql://me:{SECRET}", f"postgresql://me:{SECRET}@host/db", SECRET):
        say(page, form, {"name": "url", "text": url})
    say(page, form, {"name": "url", "text": f"postgresql://me:{SECRET}@host/db"})
    test = model(page, 'p.page("Backends").test')
    say(page, test, {"event": "click"})
    page.run(
        "import time\n"
        'while p.page("Backends").test.disabled: time.sleep(0.01)\n'
        "import ipywidgets\n"
        "state = ipywidgets.Widget.get_manager_state()"
    )
    known = page.run(
        'backend = p.page("Backends").draft.config().task_queue_backend\n'
        f"print(backend.options().password == {SECRET!r}, len(state['state']) > 10)\n"
        f"print({SECRET!r} in repr(state), {SECRET[:-1]!r} in repr(state))"
    )
    assert known.split() == ["True", "True", "False", "False"]
    sent = json.dumps([m["content"] for m in page.messages if m["msg_type"].startswith("comm")])
    assert '"held": ["password", "url"]' in sent or '"held": ["url", "password"]' in sent
    assert SECRET[:-1] not in sent


def test_running_the_cell_again_closes_what_it_opened(page):
    show(page, 'OmniQ("memory://")')
    page.run("first = p")
    assert page.run("print(first.watches > 0)").strip() == "True"
    views = model(page, "first.view")
    show(page, "first.oq")
    assert page.run("print(first.watches, first.closed, p.closed)").split() == [
        *("0", "True", "False")
    ]
    assert views in {m["content"]["comm_id"] for m in comms(page, "comm_close")}
    page.run("from ipywidgets.widgets.widget import _instances")
    count = "print(len(_instances))"
    before = page.run(count)
    for _ in range(5):
        show(page, "first.oq")
    assert page.run(count) == before
    # Another cell has its own.
    page.run("second = p")
    show(page, "first.oq", cell_id="cell-2")
    assert page.run("print(second.closed)").strip() == "False"


def test_a_connection_test_leaves_the_kernel_free(page):
    show(page)
    page.run(
        "import asyncio\n"
        "from omniq_nb.notebook.panel import backends\n"
        "async def never(config): await asyncio.Event().wait()\n"
        "backends.probe = never"
    )
    say(page, model(page, 'p.page("Backends").test'), {"event": "click"})
    assert page.run('print(p.page("Backends").test.description)').strip() == "Testing…"


def test_the_client_becomes_oq_unless_the_name_is_taken(page):
    show(page)
    connect = model(page, 'p.page("Backends").connect')
    page.run('p.page("Backends").draft.choose("task_queue", "memory")')
    say(page, connect, {"event": "click"})
    wait = "import time\nwhile {}: time.sleep(0.01)\n"
    page.run(wait.format("p.oq is None"))
    assert page.run("print(oq is p.oq)").strip() == "True"
    page.run('old, oq = p.oq, "mine"')
    say(page, connect, {"event": "click"})
    page.run(wait.format("p.oq is old"))
    assert page.run("print(oq)").strip() == "mine"


def is_update(message):
    return message["msg_type"] == "comm_msg" and message["content"]["data"]["method"] == "update"


@pytest.mark.parametrize("tab", ["Workers", "Live"])
def test_at_most_five_messages_a_second_under_load(page, tab):
    page.run("from tests.core.clients import add")
    show(page, 'OmniQ("memory://")')
    page.run(f"p.view.children[1].selected_index = frame.TABS.index({tab!r})")
    page.run(
        "import time\n"
        "from omniq_nb.notebook.panel.errands import queries_ready\n"
        "while not queries_ready(): time.sleep(0.01)"
    )
    page.run("p.oq.workers.start(4)\nbatch = p.oq.map(add, range(10_000), range(10_000))")
    sent = []
    for _ in range(5):
        say(page, model(page, "p.view.children[0]"), {"view": "v", "seen": True})
        sent.append(page.until(is_update)["header"]["date"])
    assert (sent[-1] - sent[0]).total_seconds() >= (len(sent) - 1) / 5
    page.run("print(batch.results(timeout=60)[-1])\np.close()\np.oq.close()")


def test_a_saved_notebook_shows_the_configuration_without_secrets(page, monkeypatch):
    page.run(
        "from omniq_nb import OmniQConfig, StorageBackendConfig, panel\n"
        f"config = OmniQConfig(task_queue_backend='postgresql://me:{SECRET}@host/db')\n"
        "from omniq_nb.notebook.panel.backends import Backends\n"
        "page = Backends(config, print)\n"
        "page.view"
    )
    sent = json.dumps([m["content"] for m in page.messages if m["msg_type"] != "execute_input"])
    assert "postgresql://me:***@host/db" in sent
    assert SECRET not in sent
