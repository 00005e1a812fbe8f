"""Background workers as a user sees them: real processes, really killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from omniq_nb import OmniQ, OmniQConfig, State, errors
from omniq_nb.core.engine import identity_of
from omniq_nb.core.launch.background import Errand
from omniq_nb.core.launch.base import WorkerOrder
from omniq_nb.core.launch.registry import Entry, Registry
from omniq_nb.liveness import process_start
from omniq_nb.models.task import WorkerInfo
from tests.core import work
from tests.core.clients import url_of
from tests.waiting import until

shared_backends = pytest.mark.parametrize("backend", ["sqlite", "file"])


@pytest.fixture
def backend():
    return "sqlite"


@pytest.fixture
def oq(tmp_path, backend):
    with OmniQ(url_of(backend, tmp_path)) as oq:
        yield oq
        oq.workers.stop(kind="background", timeout=0)


def registered(oq):
    return Registry.of(identity_of(oq.config)).living()


def pids(infos):
    return {info.pid for info in infos}


def state_of(oq, worker):
    return next(info.state for info in oq.workers.list() if info.id == worker.id)


def running_pid(path):
    """The process that runs `work.touch_and_sleep`."""
    return int(until(lambda: path.exists() and path.read_text(), f"{path} is written"))


@shared_backends
class TestStart:
    def test_as_many_processes_as_asked_for_work_on_the_queue(self, oq):
        infos = oq.workers.start(2, kind="background")
        assert len(pids(infos)) == 2
        assert os.getpid() not in pids(infos)
        assert {info.kind for info in infos} == {"background"}
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3
        assert oq.submit(lambda: "by value").result(timeout=60) == "by value"
        assert {info.pid for info in oq.workers.list() if info.state == "running"} == pids(infos)

    def test_again_only_changes_the_number(self, oq):
        (one,) = oq.workers.start(1, kind="background")
        infos = oq.workers.start(2, kind="background")
        assert one.pid in pids(infos)
        (left,) = oq.workers.start(1, kind="background")
        assert left.pid == one.pid
        until(lambda: len(registered(oq)) == 1, "the second one ends")
        oq.workers.scale(2, kind="background")
        assert len(registered(oq)) == 2

    def test_with_other_words_replaces_the_workers_of_these_queues_only(self, oq):
        (other,) = oq.workers.start(1, kind="background", queues="other")
        (old,) = oq.workers.start(1, kind="background")
        (new,) = oq.workers.start(1, kind="background", isolation="thread")
        until(lambda: not psutil.pid_exists(old.pid), "the old one ends")
        assert pids(entry.info for entry in registered(oq)) == {other.pid, new.pid}

    def test_without_words_stop_and_close_leave_them_alone(self, oq):
        (worker,) = oq.workers.start(1, kind="background")
        oq.workers.start(1)
        oq.workers.stop()
        assert [info.kind for info in oq.workers.list() if info.state == "running"] == [
            "background"
        ]
        assert oq.submit(os.getpid).result(timeout=60) != os.getpid()
        with OmniQ(oq.config):
            pass
        assert process_start(worker.pid) is not None


def test_they_work_on_the_clients_queue_whatever_directory_it_changes_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with OmniQ("sqlite:///here.db") as oq:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        (worker,) = oq.workers.start(1, kind="background")
        assert oq.submit(os.getcwd).result(timeout=60) == str(tmp_path)
        monkeypatch.chdir(tmp_path)
        with OmniQ("sqlite:///here.db") as other:
            assert pids(other.workers.start(1, kind="background")) == {worker.pid}
            other.workers.stop(kind="background", timeout=0)


def test_at_the_same_time_from_several_clients_is_once(oq):
    clients = [OmniQ(oq.config) for _ in range(3)]
    starting = [
        threading.Thread(target=client.workers.start, args=(2, "background")) for client in clients
    ]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len(registered(oq)) == 2
    for client in clients:
        client.close()


KERNEL = """
import os, sys, time
from omniq_nb import OmniQ
oq = OmniQ({url!r})
infos = oq.workers.start(2, kind="background")
batch = oq.map(lambda i: (time.sleep(0.05), i)[1], range(40), name="left behind")
print(*[info.pid for info in infos], flush=True)
time.sleep(600)
"""


@shared_backends
def test_they_outlive_a_killed_kernel_and_another_one_finds_them(tmp_path, backend):
    url = url_of(backend, tmp_path)
    code = KERNEL.format(url=url)
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    left = {int(pid) for pid in kernel.stdout.readline().split()}
    # Its whole process group, as a front end does it that restarts a kernel.
    kernel.kill()
    kernel.communicate()
    with OmniQ(url) as oq:
        assert oq.batch("left behind").results(timeout=60) == list(range(40))
        assert pids(oq.workers.start(2, kind="background")) == left
        oq.workers.stop(kind="background")
        assert registered(oq) == []
        assert {state_of(oq, info) for info in oq.workers.list()} == {"stopped"}
    assert all(process_start(pid) is None for pid in left)


def test_they_are_out_of_reach_of_what_happens_to_the_kernels_process_group(oq):
    (worker,) = oq.workers.start(1, kind="background")
    assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid


class TestDeath:
    def test_a_killed_one_is_shown_as_dead_and_can_be_replaced(self, oq, tmp_path):
        (worker,) = oq.workers.start(1, kind="background")
        handle = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        child = running_pid(tmp_path / "running")
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: state_of(oq, worker) == "dead", "it is shown as dead")
        assert next(info.running for info in oq.workers.list() if info.id == worker.id) == 0
        states = oq.sql("select state from workers where worker = ?", [worker.id])
        assert list(states["state"]) == ["dead"]
        until(lambda: process_start(child) is None, "what it ran ends with it")
        assert handle.status() is State.RUNNING  # until somebody sees to it
        (fresh,) = oq.workers.start(1, kind="background")
        assert fresh.pid != worker.pid
        until(lambda: running_pid(tmp_path / "running") != child, "it is run again")
        (tmp_path / "running").unlink()
        assert handle.result(timeout=60) is None
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3

    def test_the_survivors_replace_it(self, oq):
        before = pids(oq.workers.start(2, kind="background"))
        killed = before.pop()
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: len([e for e in registered(oq) if e.ready and e.info.pid != killed]) == 2,
            "there are two again",
        )
        assert before < pids(entry.info for entry in registered(oq))

    def test_a_task_that_crashes_costs_its_attempt_alone(self, oq):
        (worker,) = oq.workers.start(1, kind="background")
        crash = oq.submit(work.crash)
        leave = oq.submit(work.leave_by_exit, 3)
        with pytest.raises(errors.WorkerLost, match="SIGSEGV"):
            crash.result(timeout=60)
        with pytest.raises(errors.WorkerLost, match="exit code 3"):
            leave.result(timeout=60)
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3
        assert [entry.info.pid for entry in registered(oq)] == [worker.pid]

    def test_another_process_of_the_same_number_is_neither_counted_nor_killed(self, oq):
        bystander = subprocess.Popen(["sleep", "600"])
        registry = Registry.of(identity_of(oq.config))
        info = WorkerInfo(id="old", kind="background", host=os.uname().nodename, pid=bystander.pid)
        registry.write(
            Entry(
                name="old",
                process="earlier 1",
                order=WorkerOrder(queues=("default",)),
                info=info,
            )
        )
        (worker,) = oq.workers.start(1, kind="background")
        assert worker.pid != bystander.pid
        registry.write(Entry(name="old", process="1", order=WorkerOrder(queues=("q",)), info=info))
        oq.workers.stop(kind="background", timeout=0)
        assert bystander.poll() is None
        bystander.kill()
        bystander.wait()

    def test_one_that_cannot_start_says_why(self, oq, monkeypatch, tmp_path):
        broken = tmp_path / "python"
        broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
        broken.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(broken))
        with pytest.raises(errors.WorkerLost, match="no such luck"):
            oq.workers.start(1, kind="background")
        assert registered(oq) == []


class TestStop:
    def test_finishes_what_runs_and_leaves_the_rest(self, oq, tmp_path):
        (worker,) = oq.workers.start(1, kind="background")
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        waiting = oq.submit(work.add, 1, 2)
        running_pid(tmp_path / "running")
        stopping = threading.Thread(target=oq.workers.stop, args=("background",))
        stopping.start()
        until(lambda: state_of(oq, worker) == "draining", "it claims no more")
        (tmp_path / "running").unlink()
        stopping.join()
        assert running.status() is State.SUCCEEDED
        assert waiting.status() is State.QUEUED
        assert process_start(worker.pid) is None

    def test_after_the_timeout_gives_back_what_runs(self, oq, tmp_path):
        oq.workers.start(1, kind="background")
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        child = running_pid(tmp_path / "running")
        oq.workers.stop(kind="background", timeout=0.1)
        assert running.status() is State.QUEUED
        assert process_start(child) is None

    def test_drains_first_if_asked_to(self, oq):
        oq.workers.start(2, kind="background")
        batch = oq.map(work.add, range(50), range(50))
        oq.workers.stop(kind="background", drain=True, timeout=60)
        assert batch.counts() == {State.SUCCEEDED: 50}

    def test_kills_one_that_does_not_react(self, oq, monkeypatch):
        monkeypatch.setattr("omniq_nb.core.launch.background.RELEASING", 0.5)
        (worker,) = oq.workers.start(1, kind="background")
        os.kill(worker.pid, signal.SIGSTOP)
        oq.workers.stop(kind="background", timeout=0.1)
        assert process_start(worker.pid) is None

    def test_by_signals_first_drains_then_releases_at_once(self, oq, tmp_path):
        (worker,) = oq.workers.start(1, kind="background")
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        child = running_pid(tmp_path / "running")
        os.kill(worker.pid, signal.SIGTERM)
        until(lambda: registered(oq)[0].info.state == "draining", "it drains")
        assert process_start(child) is not None
        os.kill(worker.pid, signal.SIGTERM)
        until(lambda: running.status() is State.QUEUED, "the lease is released")
        until(lambda: process_start(worker.pid) is None, "it ends")

    def test_cancelling_ends_the_running_process(self, oq, tmp_path):
        (worker,) = oq.workers.start(1, kind="background")
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        child = running_pid(tmp_path / "running")
        assert running.cancel()
        with pytest.raises(errors.TaskCancelled):
            running.result(timeout=60)
        until(lambda: process_start(child) is None, "the process of the task ends")
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3
        assert process_start(worker.pid) is not None

    def test_interrupting_a_wait_stops_only_the_waiting(self, oq, tmp_path):
        oq.workers.start(1, kind="background")
        running = oq.submit(work.touch_and_sleep, str(tmp_path / "running"))
        running_pid(tmp_path / "running")
        code = (
            "from omniq_nb import OmniQ\n"
            f"oq = OmniQ({oq.config.to_yaml(tmp_path / 'c.yaml') and str(tmp_path / 'c.yaml')!r})\n"
            "print('waiting', flush=True)\n"
            f"try: oq.handle({running.id!r}).result()\n"
            "except KeyboardInterrupt: print('interrupted', flush=True)\n"
        )
        cell = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert cell.stdout is not None
        assert cell.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        cell.send_signal(signal.SIGINT)
        assert cell.communicate()[0] == "interrupted\n"
        assert running.status() is State.RUNNING
        (tmp_path / "running").unlink()
        running.result(timeout=60)


class TestLimits:
    def test_ends_when_it_was_idle_for_long_enough(self, oq):
        (worker,) = oq.workers.start(1, kind="background", idle_timeout=0.5)
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3
        until(lambda: process_start(worker.pid) is None, "it ends")
        assert state_of(oq, worker) == "stopped"
        assert Registry.of(identity_of(oq.config)).entries() == []

    def test_a_fresh_one_takes_over_after_so_many_tasks(self, oq):
        (worker,) = oq.workers.start(1, kind="background", max_tasks=3)
        batch = oq.map(work.add, range(9), range(9))
        batch.wait(timeout=60)
        runs = oq.sql("select worker, count(*) as n from results group by 1")
        assert sorted(runs["n"]) == [3, 3, 3]
        assert [entry.info.pid for entry in registered(oq)] == [worker.pid]

    def test_a_fresh_one_takes_over_when_memory_leaked(self, oq):
        (worker,) = oq.workers.start(1, kind="background", isolation="thread", max_memory="400 MB")
        oq.submit(leak, 500).result(timeout=60)
        until(
            lambda: [
                info
                for info in oq.workers.list()
                if info.pid == worker.pid and info.id != worker.id
            ],
            "another worker lives in that process",
        )
        assert oq.submit(work.add, 1, 2).result(timeout=60) == 3
        assert psutil.Process(worker.pid).memory_info().rss < 400 << 20

    def test_a_stop_while_it_is_replaced_is_not_lost(self, oq):
        (worker,) = oq.workers.start(1, kind="background", isolation="thread", max_tasks=1)
        oq.map(work.add, range(20), range(20))
        oq.workers.stop(kind="background", timeout=60)
        assert process_start(worker.pid) is None
        assert registered(oq) == []

    def test_the_log_begins_anew_when_it_is_long(self, oq):
        (worker,) = oq.workers.start(1, kind="background", isolation="thread")
        oq.submit(write_to_the_log, 11).result(timeout=60)
        old = Path(worker.log).with_suffix(".log.1")
        until(old.exists, "the old log is put aside")
        oq.submit(write_to_the_log, 1).result(timeout=60)
        assert old.stat().st_size > 11 << 20
        assert 1 << 20 <= Path(worker.log).stat().st_size < 2 << 20


LEAKED = []


def leak(megabytes):
    LEAKED.append(bytearray(megabytes << 20))


def write_to_the_log(megabytes):
    for _ in range(megabytes):
        os.write(1, b"x" * (1 << 20))


class TestSecrets:
    def test_nothing_of_the_configuration_stands_in_the_process_list(self, tmp_path):
        with OmniQ(
            OmniQConfig(
                project_name="hush-project",
                task_queue_backend=f"sqlite:///{tmp_path / 'hush-place.db'}",
            )
        ) as oq:
            (worker,) = oq.workers.start(1, kind="background")
            process = psutil.Process(worker.pid)
            for one in [process, *process.children()]:
                assert "hush" not in " ".join(one.cmdline())
                assert "hush" not in str(one.environ())
            (entry,) = registered(oq)
            file = Registry.of(identity_of(oq.config)).folder / f"{entry.name}.json"
            assert "hush" not in file.read_text().replace(str(tmp_path), "")
            assert file.stat().st_mode & 0o077 == 0
            assert Path(worker.log).stat().st_mode & 0o077 == 0
            oq.workers.stop(kind="background", timeout=0)

    def test_passwords_written_in_the_configuration_reach_the_worker(self):
        config = OmniQConfig(
            task_queue_backend="redis://:hush@localhost", base_dir=Path("here"), result_ttl=60
        )
        order = WorkerOrder(queues=("q",))
        errand = Errand(name="n", folder="f", config=config.to_dict(), order=order, path=[], cwd="")
        read = msgspec.msgpack.decode(msgspec.msgpack.encode(errand), type=Errand)
        assert OmniQConfig.from_dict(read.config) == config
        assert "hush" in str(read.config)

    def test_an_errand_is_never_shown(self):
        errand = Errand(
            name="n",
            folder="f",
            config={"task_queue_backend": "redis://:hush@localhost"},
            order=WorkerOrder(queues=("q",)),
            path=[],
            cwd="",
        )
        assert "hush" not in repr(errand)


class TestRefusal:
    @pytest.mark.parametrize("component", ["task_queue", "result_storage", "event_storage"])
    def test_of_stores_in_memory_names_the_component(self, tmp_path, component):
        backends = {"task_queue_backend": f"sqlite:///{tmp_path / 'omniq.db'}"}
        backends[f"{component}_backend"] = "memory://"
        with (
            OmniQ(OmniQConfig(**backends)) as oq,
            pytest.raises(errors.ConfigError, match=f"{component}_backend.*background"),
        ):
            oq.workers.start(1, kind="background")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"isolation": "proces"}, "isolation.*Did you mean 'process'"),
            ({"concurrency": 0}, "concurrency: got 0"),
            ({"idle_timeout": 0}, "idle_timeout.*more than 0 seconds"),
            ({"max_tasks": -1}, "max_tasks.*1 or more"),
            ({"max_memory": "much"}, "max_memory: got 'much'.*'2 GB'"),
            ({"address": "tcp://x"}, "address.*background workers have no such option"),
        ],
    )
    def test_of_wrong_words_says_what_is_allowed(self, oq, options, message):
        with pytest.raises(errors.ConfigError, match=message):
            oq.workers.start(1, kind="background", **options)

    def test_of_words_that_workers_of_this_process_do_not_have(self, oq):
        with pytest.raises(errors.ConfigError, match=r"max_tasks.*only launched workers"):
            oq.workers.start(1, max_tasks=3)

    def test_of_an_unknown_kind_suggests_the_nearest(self, oq):
        with pytest.raises(errors.ConfigError, match="Did you mean 'background'"):
            oq.workers.start(1, kind="backgroud")


@pytest.mark.parametrize("text", ["1024", "1 KB", "1kiB", "1k"])
def test_sizes_are_powers_of_1024(text):
    order, _ = WorkerOrder.checked(("q",), {"max_memory": text})
    assert order.max_memory == 1024
