"""Where tasks come from, and what they ran in: as the history tells it."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest
from jupyter_client.manager import start_new_kernel

from omniq_nb import OmniQ
from omniq_nb.core import provenance
from omniq_nb.core.provenance import code_version, environment
from tests.core import work
from tests.core.clients import backends, url_of


@pytest.fixture
def oq(tmp_path, backend):
    with OmniQ(url_of(backend, tmp_path)) as oq:
        yield oq


def told(oq, query):
    return [json.loads(data) for data in oq.sql(query)["data"]]


@backends
def test_a_tasks_history_tells_code_and_environment(oq):
    oq.workers.start(1)
    oq.submit(work.add, 1, 2).result(timeout=60)
    oq.map(work.add, [1], [2]).wait(timeout=60)
    enqueued = told(oq, "select data from events where type = 'enqueued'")
    assert [one["code"] for one in enqueued] == [code_version(work.add.__code__)] * 2
    (worker,) = told(oq, "select data from events where type = 'worker_started'")
    (known,) = told(
        oq,
        "select env.data from events as env join events as started "
        "on env.type = 'environment' and env.message = started.data ->> 'environment' "
        "where started.type = 'worker_started'",
    )
    assert worker["environment"] == enqueued[0]["environment"]
    assert known["python"] == platform.python_version()
    assert known["packages"]["cloudpickle"] == version("cloudpickle")


def test_the_query_of_the_documentation_runs(tmp_path):
    from omniq_nb.explore.views import TYPES

    query = TYPES.partition("```sql\n")[2].partition("```")[0]
    with OmniQ(url_of("sqlite", tmp_path)) as oq:
        oq.workers.start(1)
        oq.submit(work.add, 1, 2).result(timeout=60)
        assert list(oq.sql(query)["numpy"]) == [version("numpy")]


def compiled(source):
    names = {}
    exec(source, names)
    return code_version(names["f"].__code__)


def test_the_code_version_follows_what_the_function_does():
    one = compiled("def f(x):\n    return x + 1\n")
    assert compiled("\n\ndef f(x):\n    # moved\n    return x + 1\n") == one
    assert compiled("def f(x):\n    return x + 2\n") != one
    assert compiled("def f(x):\n    return x - 1\n") != one
    assert compiled("def f(x):\n    return [y + 1 for y in x]\n") != compiled(
        "def f(x):\n    return [y + 2 for y in x]\n"
    )


def test_the_code_version_is_the_same_in_another_process():
    source = "def f(x):\n    return x in {'a', 'b', 'c', 'd'}, lambda: x\n"
    code = (
        "from omniq_nb.core.provenance import code_version\n"
        f"names = {{}}; exec({source!r}, names); print(code_version(names['f'].__code__))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == compiled(source)


class TestCommit:
    @pytest.fixture
    def repository(self, tmp_path, monkeypatch):
        self.git(tmp_path, "init", "-q")
        self.commit(tmp_path)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def git(self, folder, *words):
        done = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *words],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, folder):
        self.git(folder, "commit", "-q", "--allow-empty", "-m", "m")

    def known(self):
        provenance._environment.cache_clear()
        return json.loads(environment().json).get("commit")

    def test_is_that_of_the_repository_around(self, repository, monkeypatch):
        (repository / "deep" / "down").mkdir(parents=True)
        monkeypatch.chdir(repository / "deep" / "down")
        assert self.known() == self.git(repository, "rev-parse", "HEAD")

    def test_is_another_one_after_the_next(self, repository):
        first = self.known()
        self.commit(repository)
        assert self.known() == self.git(repository, "rev-parse", "HEAD") != first

    def test_is_found_among_packed_references(self, repository):
        self.git(repository, "pack-refs", "--all")
        assert self.known() == self.git(repository, "rev-parse", "HEAD")

    def test_is_found_in_a_worktree_and_without_a_branch(self, repository, monkeypatch):
        self.git(repository, "worktree", "add", "-q", "tree", "-b", "other")
        self.commit(repository / "tree")
        monkeypatch.chdir(repository / "tree")
        assert self.known() == self.git(repository / "tree", "rev-parse", "HEAD")
        self.git(repository, "worktree", "add", "-q", "--detach", "loose")
        monkeypatch.chdir(repository / "loose")
        assert self.known() == self.git(repository, "rev-parse", "HEAD")

    def test_is_missing_where_there_is_no_repository(self, tmp_path_factory, monkeypatch):
        monkeypatch.chdir(tmp_path_factory.mktemp("plain"))
        assert self.known() is None


CELLS = """
from omniq_nb import OmniQ
oq = OmniQ("memory://")
---
oq.submit(lambda: 1);
---
print(oq.sql("select data from events where type = 'enqueued'")["data"][0])
oq.close()
"""


def test_a_folder_that_is_gone_is_no_trouble(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with OmniQ("memory://") as oq:
        oq.workers.start(1)
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3


def test_a_notebook_tells_its_name_and_the_id_of_the_cell():
    manager, client = start_new_kernel(env=os.environ | {"JPY_SESSION_NAME": "work/sweep.ipynb"})
    try:
        for number, code in enumerate(CELLS.split("---")):
            # As JupyterLab does it.
            message = client.session.msg("execute_request", {"code": code, "silent": False})
            message["metadata"] = {"cellId": f"cell-{number}"}
            client.shell_channel.send(message)
            assert client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
        while "text" not in (printed := client.get_iopub_msg(timeout=60)["content"]):
            pass
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    told = json.loads(printed["text"])
    assert told["notebook"] == "work/sweep.ipynb"
    assert told["cell"] == "cell-1"
