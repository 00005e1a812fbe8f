"""The command line as a shell sees it: real processes, their words and their exit codes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from omniq_nb import OmniQ, OmniQConfig, State, errors
from omniq_nb.liveness import process_start
from tests.core import work
from tests.waiting import until


@pytest.fixture
def config(tmp_path):
    """A configuration file."""
    path = tmp_path / "omniq.yaml"
    OmniQConfig(
        project_name="cli", task_queue_backend=f"sqlite:///{tmp_path / 'omniq.db'}"
    ).to_yaml(path)
    return path


@pytest.fixture
def oq(config):
    with OmniQ.from_yaml(config) as oq:
        yield oq


def omniq(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "omniq_nb", *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def done(*words, **environment):
    ended = omniq(*words, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def answer(*words):
    return json.loads(done(*words, "--json"))


def start_worker(config, *words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "omniq_nb", "worker", "--config", str(config), *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class TestWorker:
    @pytest.mark.parametrize("kind", ["thread", "async", "process", "process-per-task"])
    def test_runs_tasks_until_it_was_idle_for_long_enough(self, config, oq, kind):
        batch = oq.map(work.add, range(5), range(5))
        elsewhere = oq.task(queue="elsewhere")(work.add).submit(1, 1)
        done("worker", "-c", config, "-k", kind, "-n", 2, "--idle-timeout", 1.5)
        assert batch.counts() == {State.SUCCEEDED: 5}
        assert elsewhere.status() is State.QUEUED
        assert [(info.kind, info.state) for info in oq.workers.list()] == [(kind, "stopped")]

    def test_asks_the_queues_in_their_order(self, config, oq):
        for queue in ("b", "a"):
            oq.task(queue=queue)(work.add).options(name=queue).submit(1, 1)
        done("worker", "-c", config, "--queues", "a,b", "-n", 1, "--idle-timeout", 0.5)
        assert list(oq.sql("select name from results order by started_at")["name"]) == ["a", "b"]

    def test_drains_on_the_first_signal_and_gives_back_on_the_second(self, config, oq, tmp_path):
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        worker = start_worker(config)
        until((tmp_path / "running").exists, "the task runs")
        worker.send_signal(signal.SIGINT)
        until(lambda: oq.workers.list()[0].state == "draining", "it drains")
        assert running.status() is State.RUNNING
        worker.send_signal(signal.SIGINT)
        worker.communicate()
        assert worker.returncode == 0
        assert running.status() is State.QUEUED

    def test_begins_afresh_after_so_many_tasks(self, config, oq):
        batch = oq.map(work.add, range(4), range(4))
        worker = start_worker(config, "--max-tasks", 2, "-n", 1)
        batch.wait(timeout=60)
        assert len(oq.sql("select distinct worker from results")) == 2
        assert {info.pid for info in oq.workers.list()} == {worker.pid}
        worker.terminate()
        worker.communicate()
        assert worker.returncode == 0

    def test_refuses_a_queue_in_memory(self):
        ended = omniq("worker", "--backend", "memory://")
        assert ended.returncode == 2
        assert "task_queue_backend" in ended.stderr
        assert "Traceback" not in ended.stderr


class TestTwoMachines:
    """Two users with folders, settings and keys of their own; only the store is shared."""

    def machine(self, tmp_path, name, **variables):
        home = tmp_path / name
        home.mkdir()
        folders = {f"XDG_{kind}_HOME": str(home / kind) for kind in ("CONFIG", "STATE", "CACHE")}
        return {"HOME": str(home), **folders, **variables}

    @pytest.mark.parametrize("backend", ["sqlite:///{}/shared.db", "file://{}/shared"])
    def test_with_the_same_file_and_key_work_on_the_same_tasks(
        self, tmp_path, monkeypatch, backend
    ):
        monkeypatch.setenv("OMNIQ_SECRET_KEY", "between us")
        config = tmp_path / "omniq.yaml"
        config.write_text(
            f"task_queue_backend: {{url: {backend.format(tmp_path)!r}}}\n", encoding="utf-8"
        )
        other = self.machine(tmp_path, "other")
        with OmniQ.from_yaml(config) as oq:
            batch = oq.map(lambda i: (i * i, os.environ["HOME"]), range(5))
            worker = start_worker(config, cwd=other["HOME"], env=os.environ | other)
            assert batch.results(timeout=60) == [(i * i, other["HOME"]) for i in range(5)]
            worker.terminate()
            worker.communicate()

    def test_with_different_keys_do_not_run_each_others_code(self, tmp_path, config, oq):
        handle = oq.submit(work.add, 1, 2)
        other = self.machine(tmp_path, "other", OMNIQ_SECRET_KEY="somebody else's")
        done("worker", "-c", config, "--idle-timeout", 1, **other)
        with pytest.raises((errors.PayloadRefused, errors.TaskFailed), match=r"key|sign"):
            handle.result(timeout=60)


class TestStatus:
    def test_counts_tasks_and_shows_workers(self, config, oq):
        oq.map(work.add, range(3), range(3))
        oq.workers.start(1, queues="other")
        status = answer("status", "-c", config)
        assert status["queues"] == {"default": {"queued": 3}}
        assert [worker["queues"] for worker in status["workers"]] == [["other"]]
        page = done("status", "-c", config)
        assert "default" in page
        assert "running" in page

    def test_of_nothing_says_so(self, config):
        assert "no tasks" in done("status", "-c", config)

    def test_stop_ends_background_workers(self, config, oq):
        (worker,) = oq.workers.start(1, kind="background")
        assert worker.log in done("status", "-c", config)
        done("stop", "-c", config)
        assert process_start(worker.pid) is None


class TestTasks:
    def test_are_listed_newest_last_and_filtered(self, config, oq):
        batch = oq.map(work.add, range(3), range(3), name="some")
        oq.task(queue="other")(work.add).submit(1, 1)
        batch[0].cancel()
        assert [row["queue"] for row in answer("tasks", "-c", config)][-1] == "other"
        assert len(answer("tasks", "-c", config, "--batch", "some")) == 3
        (row,) = answer("tasks", "-c", config, "--state", "cancelled", "--queue", "default")
        assert row["task_id"] == batch[0].id
        assert len(answer("tasks", "-c", config, "--limit", 2)) == 2
        assert batch[1].id in done("tasks", "-c", config)

    def test_are_cancelled_and_queued_again(self, config, oq):
        batch = oq.map(work.add, range(3), range(3), name="some")
        assert "1 cancelled" in done("cancel", "-c", config, batch[0].id)
        assert "2 cancelled" in done("cancel", "-c", config, "--batch", "some")
        assert "3 queued again" in done("requeue", "-c", config, "--batch", "some")
        assert batch.counts() == {State.QUEUED: 3}

    def test_that_are_not_there_are_exit_code_1(self, config):
        assert omniq("cancel", "-c", config, "nonsense").returncode == 1
        ended = omniq("requeue", "-c", config, "--batch", "nonsense")
        assert ended.returncode == 1
        assert "nonsense" in ended.stderr

    def test_must_be_named(self, config):
        assert omniq("cancel", "-c", config).returncode == 2

    def test_are_queried_and_forgotten(self, config, oq):
        oq.workers.start(1)
        oq.map(work.add, [1, 2], [1, 2]).wait(timeout=60)
        query = "select sum(value) as total from results"
        assert answer("sql", "-c", config, query) == [{"total": 6}]
        assert "total" in done("sql", "-c", config, query)
        ended = omniq("sql", "-c", config, "selec")
        assert ended.returncode == 2
        assert ended.stderr.startswith("QueryError")
        assert omniq("purge", "-c", config, "--older-than", "1d").returncode == 130  # no answer
        assert answer("purge", "-c", config, "--older-than", "1d", "-y")["tasks"] == 0
        assert answer("purge", "-c", config, "--older-than", "0.001s", "-y")["tasks"] == 2
        ended = omniq("purge", "-c", config, "--older-than", "soon", "-y")
        assert ended.returncode == 2
        assert "--older-than" in ended.stderr


class TestConfig:
    def test_says_where_each_value_comes_from(self, config):
        ended = json.loads(
            done("config", "-c", config, "--json", OMNIQ_RETRY_ATTEMPTS="3", OMNIQ_LOG_LEVEL="INFO")
        )
        sources = {row["setting"]: (row["value"], row["source"]) for row in ended}
        assert sources["project_name"] == ("cli", "config")
        assert sources["retry_attempts"] == (3, "OMNIQ_RETRY_ATTEMPTS")
        assert sources["event_storage_backend"][1] == "task_queue"
        assert "OMNIQ_LOG_LEVEL" in done("config", "-c", config, OMNIQ_LOG_LEVEL="INFO")

    def test_never_shows_a_secret(self, tmp_path):
        path = tmp_path / "secret.yaml"
        path.write_text("task_queue_backend: {url: 'redis://user:hush@localhost/0'}\n")
        for command in ("config", "check", "status"):
            ended = omniq(command, "-c", path)
            assert "hush" not in ended.stdout + ended.stderr

    def test_check_says_what_each_component_promises(self, config):
        tried = answer("check", "-c", config)
        assert [one["component"] for one in tried] == [
            "task_queue",
            "result_storage",
            "event_storage",
            "schedule_storage",
        ]
        assert all(one["problem"] is None for one in tried)
        assert "durability: survives crashes" in done("check", "-c", config)

    def test_check_of_what_cannot_be_used_is_exit_code_1(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        ended = omniq("check", "-b", f"sqlite:///{tmp_path / 'file' / 'omniq.db'}")
        assert ended.returncode == 1
        assert "cannot be used" in ended.stdout

    def test_an_unreachable_store_is_exit_code_3(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        ended = omniq("status", "-b", f"sqlite:///{tmp_path / 'file' / 'omniq.db'}")
        assert ended.returncode == 3
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize(
        "words",
        [["status", "-b", "nonsense://x"], ["status", "-c", "missing.yaml"], ["nonsense"],
         ["status", "-b", "memory://", "-c", "x.yaml"]],
    )  # fmt: skip
    def test_wrong_words_are_exit_code_2(self, words):
        ended = omniq(*words)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_completion_for_each_shell(shell):
    assert "_OMNIQ_NB_COMPLETE" in done("completion", shell)


def test_completes_words():
    words = done(
        _OMNIQ_NB_COMPLETE="bash_complete", COMP_WORDS="omniq-nb worker --kind pro", COMP_CWORD="3"
    )
    assert "process-per-task" in words


def test_help_is_quick_to_load():
    heavy = ["duckdb", "pandas", "pyarrow", "rich", "asyncio", "omniq_nb.core"]
    code = f"import sys, omniq_nb.cli\nprint([name for name in {heavy!r} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
