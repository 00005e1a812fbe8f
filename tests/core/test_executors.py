"""What every executor does with a task, and what only some can do."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest

from omniq_nb.codec import Codec
from omniq_nb.core.child import Hello
from omniq_nb.core.executors import EXECUTORS, Executor, Outcome, Progress
from omniq_nb.core.executors import slots as slot_threads
from omniq_nb.core.pipes import receive, send
from omniq_nb.liveness import process_start
from omniq_nb.models.task import State, Task
from tests.core.work import (
    GATES,
    PATIENCE,
    Gate,
    a_lock,
    add,
    add_later,
    await_at,
    command_line_and_environment,
    count_up,
    crash,
    defy,
    fail,
    fail_later,
    ignore_cancellation,
    leave_by_exit,
    leave_by_signal,
    loop_until_cancelled,
    main_module,
    meet,
    megabytes,
    pid,
    raise_it,
    read_stdin,
    say,
    shout,
    sleep_and_clean_up,
    sleep_and_clean_up_plainly,
    start_helper,
    swallow,
    touch_and_sleep,
    wait_at,
    where,
    who,
    write_below_python,
)
from tests.waiting import until

KEY = b"k" * 32
CODEC = Codec(KEY)
KINDS = sorted(EXECUTORS)
IN_PROCESS = ["async", "thread"]

_ids = count()


class Bench:
    """An executor, and what came out of it so far."""

    def __init__(self, kind: str, concurrency: int) -> None:
        self.news = threading.Event()
        self.notified = 0
        self.outcomes: dict[str, Outcome] = {}
        self.progress: list[Progress] = []
        self.executor: Executor = EXECUTORS[kind](concurrency, CODEC, self._notify, "auto")

    def _notify(self) -> None:
        self.notified += 1
        self.news.set()

    def task(self, function, *args, timeout=None, attempt=1) -> Task:
        task_id = f"t{next(_ids)}"
        packed = CODEC.pack_function(function)
        call = CODEC.encode_call(packed, args, {}, context=f"call:{task_id}")
        return Task(
            id=task_id, name=function.__name__, call=call, timeout=timeout, attempt=attempt, token=7
        )

    def submit(self, function, *args, timeout=None) -> Task:
        task = self.task(function, *args, timeout=timeout)
        self.executor.submit([task])
        return task

    def take(self) -> None:
        outcomes, progress = self.executor.take()
        self.progress += progress
        for outcome in outcomes:
            assert outcome.task.id not in self.outcomes, "settled twice"
            self.outcomes[outcome.task.id] = outcome

    def outcome(self, task: Task) -> Outcome:
        """Wait for it."""
        deadline = time.monotonic() + PATIENCE
        while task.id not in self.outcomes:
            assert self.news.wait(deadline - time.monotonic()), "no outcome"
            self.news.clear()
            self.take()
        return self.outcomes[task.id]

    def run(self, function, *args, timeout=None) -> Outcome:
        return self.outcome(self.submit(function, *args, timeout=timeout))

    def value(self, outcome: Outcome) -> object:
        assert outcome.to is State.SUCCEEDED, outcome.traceback or outcome.error
        return CODEC.decode(
            outcome.payload, context=f"result:{outcome.task.id}:{outcome.task.token}"
        )


@contextmanager
def bench(kind: str, concurrency: int = 1) -> Iterator[Bench]:
    made = Bench(kind, concurrency)
    made.executor.start()
    try:
        yield made
    finally:
        made.executor.stop(0)


def is_alive(pid: int) -> bool:
    return process_start(pid) is not None


@pytest.fixture
def gate(request) -> Iterator[str]:
    GATES[request.node.name] = Gate()
    yield request.node.name
    GATES.pop(request.node.name).leave.set()


# ---------------------------------------------------------------- all kinds


@pytest.mark.parametrize("kind", KINDS)
class TestEveryExecutor:
    def test_returns_the_value_under_the_signature_of_its_claim(self, kind):
        with bench(kind) as b:
            outcome = b.run(add, 2, 3)
        assert b.value(outcome) == 5
        assert outcome.value == "5"
        assert outcome.started_at <= outcome.finished_at <= time.time() + 1

    def test_hands_back_the_very_task_that_was_submitted(self, kind):
        with bench(kind) as b:
            task = b.submit(add, 1, 1)
            assert b.outcome(task).task is task

    def test_runs_coroutine_functions(self, kind):
        with bench(kind) as b:
            assert b.value(b.run(add_later, "a", "b")) == "ab"

    @pytest.mark.parametrize("function", [fail, fail_later])
    def test_tells_what_was_raised_and_where(self, kind, function):
        with bench(kind) as b:
            outcome = b.run(function, "no such file")
        assert outcome.to is State.FAILED
        assert outcome.error == "Broken: no such file"
        assert outcome.error_types[0].endswith(".Broken")
        assert outcome.error_types[1:] == (
            "builtins.ValueError",
            "builtins.Exception",
            "builtins.BaseException",
        )
        assert f"in {function.__name__}" in outcome.traceback
        assert "omniq_nb" not in outcome.traceback
        assert "asyncio" not in outcome.traceback
        error = CODEC.decode(outcome.payload, context=f"result:{outcome.task.id}:7")
        assert str(error) == "no such file"

    @pytest.mark.parametrize("name", ["exit", "interrupt"])
    def test_survives_a_task_that_wants_to_end_it(self, kind, name):
        with bench(kind) as b:
            assert b.run(raise_it, name).to is State.FAILED
            assert b.value(b.run(add, 1, 1)) == 2

    def test_fails_a_result_that_cannot_travel(self, kind):
        with bench(kind) as b:
            outcome = b.run(a_lock)
        assert outcome.to is State.FAILED
        assert "omniq_nb.errors.NotSerializable" in outcome.error_types
        assert "lock" in outcome.error

    def test_refuses_a_call_that_was_signed_for_another_task(self, kind):
        with bench(kind) as b:
            task, other = b.task(add, 1, 1), b.task(add, 2, 2)
            task.call = other.call
            b.executor.submit([task])
            assert b.outcome(task).to is State.FAILED

    def test_cuts_a_long_message(self, kind):
        with bench(kind) as b:
            assert len(b.run(fail, "x" * 10_000).error) == 500

    def test_keeps_text_that_is_no_text(self, kind):
        with bench(kind) as b:
            outcome = b.run(fail, "half \ud800 a pair")
            said = b.run(say, "half \ud800 a pair")
        for text in (outcome.error, outcome.traceback, said.output):
            assert "\\ud800" in text
            text.encode()

    def test_knows_the_current_task(self, kind):
        with bench(kind) as b:
            task = b.submit(who)
            value = b.value(b.outcome(task))
        assert list(value) == [task.id, "who", 1, "default", None, False]

    def test_gives_each_task_its_own_output(self, kind, capsys):
        with bench(kind, 3) as b:
            tasks = [b.submit(say, f"word {i}") for i in range(9)]
            outputs = [b.outcome(task).output for task in tasks]
        assert outputs == [f"word {i}\nword {i}\n" for i in range(9)]
        assert capsys.readouterr() == ("", "")

    def test_has_no_output_where_nothing_was_written(self, kind):
        with bench(kind) as b:
            assert b.run(add, 1, 1).output is None

    def test_reports_progress(self, kind):
        with bench(kind) as b:
            task = b.submit(count_up, 3)
            b.outcome(task)
        last = b.progress[-1]
        assert (last.task, last.done, last.total, last.message) == (task, 3.0, 3.0, "step 3")

    def test_notifies_once_until_the_next_take(self, kind):
        with bench(kind) as b:
            b.executor.submit([b.task(add, i, i) for i in range(20)])
            until(lambda: not b.executor.backlog() and not b.executor.running(), "all done")
            assert b.news.wait(PATIENCE)
            assert b.notified == 1
            b.take()
            assert len(b.outcomes) == 20
            assert b.value(b.run(add, 1, 1)) == 2

    def test_fails_an_attempt_whose_time_is_over_and_goes_on(self, kind, tmp_path):
        path = tmp_path / "started"
        with bench(kind) as b:
            b.run(add, 1, 1)
            outcome = b.run(touch_and_sleep, str(path), timeout=0.5)
            assert b.value(b.run(add, 1, 1)) == 2
            path.unlink()
        assert outcome.to is State.FAILED
        assert outcome.error.startswith("TaskTimeout: ran longer than 0.5 s")
        assert {"omniq_nb.errors.TaskTimeout", "builtins.TimeoutError"} <= set(outcome.error_types)

    def test_leaves_an_attempt_alone_that_is_in_time(self, kind):
        with bench(kind) as b:
            assert b.value(b.run(add, 1, 1, timeout=PATIENCE)) == 2

    def test_cancels_a_coroutine_which_cleans_up(self, kind, tmp_path):
        path = tmp_path / "state"
        with bench(kind) as b:
            task = b.submit(sleep_and_clean_up, str(path))
            until(path.exists, "started")
            b.executor.cancel(task.id, "cancelled")
            b.executor.cancel(task.id, "lost")
            outcome = b.outcome(task)
            assert outcome.to is State.CANCELLED
            assert outcome.error == "TaskCancelled: cancelled"
            assert path.read_text() == "cleaned up"
            assert b.value(b.run(add, 1, 1)) == 2

    def test_ends_a_coroutine_whose_time_is_over(self, kind, tmp_path):
        path = tmp_path / "state"
        with bench(kind) as b:
            b.run(add, 1, 1)
            assert b.run(sleep_and_clean_up, str(path), timeout=0.5).to is State.FAILED
            until(lambda: path.read_text() == "cleaned up", "ended")

    def test_stops_when_all_is_done_and_leaves_no_thread(self, kind):
        before = set(threading.enumerate())
        b = Bench(kind, 3)
        b.executor.start()
        tasks = [b.submit(add, i, i) for i in range(5)]
        for task in tasks:
            b.outcome(task)
        assert b.executor.stop(PATIENCE) == []
        until(lambda: set(threading.enumerate()) <= before, "threads ended")

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
    def test_leaves_no_file_open(self, kind):
        def run_one():
            with bench(kind) as b:
                b.run(add_later, 1, 1)

        run_one()
        before = len(list(Path("/proc/self/fd").iterdir()))
        run_one()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


# ---------------------------------------------------------------- in this process


@pytest.mark.parametrize("kind", IN_PROCESS)
@pytest.mark.parametrize("waiting", [wait_at, await_at])
class TestInThisProcess:
    def test_runs_as_many_at_the_same_time_as_it_should(self, kind, waiting, gate):
        with bench(kind, 3) as b:
            for _ in range(5):
                b.submit(waiting, gate)
            for _ in range(3):
                assert GATES[gate].started.acquire(timeout=PATIENCE)
            assert not GATES[gate].started.acquire(timeout=0.05)
            assert len(b.executor.running()) == 3
            assert b.executor.backlog() == 2
            GATES[gate].leave.set()

    def test_runs_more_when_it_is_made_larger(self, kind, waiting, gate):
        with bench(kind) as b:
            for _ in range(3):
                b.submit(waiting, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            b.executor.resize(3)
            for _ in range(2):
                assert GATES[gate].started.acquire(timeout=PATIENCE)
            GATES[gate].leave.set()

    def test_runs_fewer_when_it_is_made_smaller(self, kind, waiting, gate):
        with bench(kind, 3) as b:
            b.executor.resize(1)
            until(lambda: kind == "async" or slots() == 1, "idle slots left")
            for _ in range(3):
                b.submit(waiting, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            assert not GATES[gate].started.acquire(timeout=0.05)
            GATES[gate].leave.set()

    def test_gives_back_what_is_not_started(self, kind, waiting, gate):
        with bench(kind) as b:
            first, *others = [b.submit(waiting, gate) for _ in range(4)]
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            # The async executor hands plain functions over one by one.
            until(lambda: b.executor.backlog() == len(others), "all are handed over")
            assert b.executor.withdraw() == others
            GATES[gate].leave.set()
            assert b.value(b.outcome(first)) == "left"
            assert b.executor.backlog() == 0

    def test_never_starts_what_was_cancelled_before(self, kind, waiting, gate):
        with bench(kind) as b:
            first = b.submit(waiting, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            second = b.submit(waiting, gate)
            b.executor.cancel(second.id, "cancelled")
            outcome = b.outcome(second)
            assert (outcome.to, outcome.released) == (State.CANCELLED, True)
            GATES[gate].leave.set()
            b.outcome(first)
            assert not GATES[gate].started.acquire(timeout=0.05)

    def test_stop_waits_and_then_abandons(self, kind, waiting, gate):
        with bench(kind) as b:
            running, queued = b.submit(waiting, gate), b.submit(waiting, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            abandoned = b.executor.stop(0.05)
            assert sorted(task.id for task in abandoned) == sorted([running.id, queued.id])
            GATES[gate].leave.set()
            b.take()
            assert b.outcomes == {}

    def test_stop_lets_what_runs_finish(self, kind, waiting, gate):
        with bench(kind) as b:
            task = b.submit(waiting, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            threading.Timer(0.05, GATES[gate].leave.set).start()
            assert b.executor.stop(None) == []
            b.take()
            assert b.value(b.outcomes[task.id]) == "left"

    def test_a_late_attempt_gives_its_place_on_and_its_result_is_thrown_away(
        self, kind, waiting, gate
    ):
        with bench(kind) as b:
            assert b.run(waiting, gate, timeout=0.05).error_types[0].endswith("TaskTimeout")
            assert b.value(b.run(add, 1, 1)) == 2
            GATES[gate].leave.set()
            assert b.value(b.run(add, 2, 2)) == 4
            assert b.executor.running() == {}


def slots() -> int:
    return sum(thread.name == "omniq thread" for thread in threading.enumerate())


class TestThreads:
    def test_a_free_slot_has_its_task_before_who_submits_goes_on(self, gate, monkeypatch):
        monkeypatch.setattr(slot_threads, "HANDOVER", PATIENCE)
        with bench("thread", 2) as b:
            for _ in range(2):
                task = b.submit(wait_at, gate)
                assert task.id in b.executor.running()
            began = time.monotonic()
            b.submit(wait_at, gate)  # no slot is free
            assert time.monotonic() - began < PATIENCE
            GATES[gate].leave.set()

    def test_a_function_that_looks_can_be_cancelled(self, gate):
        with bench("thread") as b:
            task = b.submit(loop_until_cancelled, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            b.executor.cancel(task.id, "lost")
            outcome = b.outcome(task)
        assert outcome.to is State.CANCELLED
        assert "lost" in outcome.error

    def test_a_function_that_never_looks_finishes(self, gate):
        with bench("thread") as b:
            task = b.submit(ignore_cancellation, gate)
            assert GATES[gate].started.acquire(timeout=PATIENCE)
            b.executor.cancel(task.id, "cancelled")
            GATES[gate].leave.set()
            assert b.value(b.outcome(task)) == "left"

    def test_the_timeout_says_how_to_stop_it_for_real(self, gate):
        with bench("thread") as b:
            outcome = b.run(wait_at, gate, timeout=0.05)
        assert "use process workers" in outcome.error

    def test_tasks_that_print_in_turns_do_not_mix(self, gate):
        with bench("thread", 2) as b:
            left, right = b.submit(meet, gate, "left"), b.submit(meet, gate, "right")
            assert b.outcome(left).output == "left left left "
            assert b.outcome(right).output == "right right right "

    def test_a_task_that_raises_taskcancelled_unasked_has_failed(self):
        def quit_it():
            from omniq_nb.errors import TaskCancelled

            raise TaskCancelled("the task it waited for")

        with bench("thread") as b:
            assert b.run(quit_it).to is State.FAILED

    def test_what_a_coroutine_leaves_behind_does_not_run_on(self):
        async def leave_behind():
            asyncio.get_running_loop().create_task(asyncio.sleep(PATIENCE), name="left")

        async def look():
            return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "left"]

        with bench("thread") as b:
            b.run(leave_behind)
            assert b.value(b.run(look)) == []


class TestCoroutines:
    def test_many_wait_at_the_same_time_in_one_thread(self):
        async def nap():
            await asyncio.sleep(0.2)

        with bench("async", 500) as b:
            started = time.monotonic()
            tasks = [b.submit(nap) for _ in range(500)]
            for task in tasks:
                assert b.outcome(task).to is State.SUCCEEDED
        assert time.monotonic() - started < 50  # one after the other takes 100 s

    def test_a_coroutine_that_refuses_to_end_loses_its_place(self, gate):
        with bench("async") as b:
            assert b.run(swallow, gate, timeout=0.05).to is State.FAILED
            assert b.value(b.run(add_later, 1, 1)) == 2
            GATES[gate].leave.set()

    def test_a_function_that_returns_a_coroutine_is_run_to_its_end(self):
        with bench("async") as b:
            assert b.value(b.run(lambda: add_later(1, 2))) == 3

    def test_a_coroutine_cancelled_before_its_first_step_is_cancelled(self):
        with bench("async", 2) as b:
            tasks = [b.task(add_later, 1, 1) for _ in range(50)]
            b.executor.submit(tasks)
            for task in tasks:
                b.executor.cancel(task.id, "cancelled")
            assert all(b.outcome(task).to in (State.CANCELLED, State.SUCCEEDED) for task in tasks)


# ---------------------------------------------------------------- child processes


class TestProcesses:
    @pytest.mark.parametrize(
        ("function", "argument", "words"),
        [
            (leave_by_exit, 3, "exit code 3"),
            (leave_by_exit, 0, "exit code 0"),
            (leave_by_signal, signal.SIGKILL, "signal 9 (SIGKILL"),
            (leave_by_signal, signal.SIGTERM, "SIGTERM"),
        ],
    )
    def test_a_death_costs_that_attempt_only(self, function, argument, words):
        with bench("process") as b:
            outcome = b.run(function, argument)
            assert b.value(b.run(add, 1, 1)) == 2
        assert outcome.to is State.FAILED
        assert outcome.error.startswith("WorkerLost: the process")
        assert words in outcome.error
        assert "omniq_nb.errors.WorkerLost" in outcome.error_types
        assert outcome.output == "last words\n"

    def test_a_crash_tells_where_it_happened(self):
        with bench("process") as b:
            outcome = b.run(crash)
            assert b.value(b.run(add, 1, 1)) == 2
        assert outcome.error == "WorkerLost: the process ended with signal 11 (SIGSEGV)"
        assert "in crash" in outcome.output

    def test_a_child_that_died_between_tasks_is_replaced(self):
        with bench("process") as b:
            first = b.value(b.run(pid))
            os.kill(first, signal.SIGKILL)
            until(lambda: not is_alive(first), "killed")
            outcomes = [b.run(pid), b.run(pid)]
            assert b.value(outcomes[-1]) != first

    def test_cancelling_stops_a_function_for_real_and_lets_it_clean_up(self, tmp_path):
        path = tmp_path / "state"
        with bench("process") as b:
            task = b.submit(sleep_and_clean_up_plainly, str(path))
            until(path.exists, "started")
            b.executor.cancel(task.id, "cancelled")
            outcome = b.outcome(task)
            assert outcome.to is State.CANCELLED
            assert path.read_text() == "cleaned up"
            assert b.value(b.run(add, 1, 1)) == 2

    def test_a_child_that_defies_is_killed(self, tmp_path):
        path = tmp_path / "pid"
        with bench("process") as b:
            task = b.submit(defy, str(path))
            until(lambda: path.exists() and path.read_text(), "started")
            b.executor.cancel(task.id, "cancelled")
            assert b.outcome(task).to is State.CANCELLED
            assert not is_alive(int(path.read_text()))

    def test_what_a_cancelled_task_started_ends_with_it(self, tmp_path):
        path = tmp_path / "pid"
        with bench("process") as b:
            task = b.submit(start_helper, str(path))
            until(lambda: path.exists() and path.read_text(), "started")
            b.executor.cancel(task.id, "cancelled")
            b.outcome(task)
            until(lambda: not is_alive(int(path.read_text())), "helper ended")

    def test_stop_ends_what_still_runs(self, tmp_path):
        path = tmp_path / "pid"
        b = Bench("process", 1)
        b.executor.start()
        task = b.submit(touch_and_sleep, str(path))
        until(lambda: path.exists() and path.read_text(), "started")
        assert b.executor.stop(0.05) == [task]
        assert not is_alive(int(path.read_text()))
        b.take()
        assert b.outcomes == {}

    def test_idle_children_end_with_the_executor(self):
        with bench("process", 2) as b:
            child = b.value(b.run(pid))
            assert child != os.getpid()
        assert not is_alive(child)

    def test_big_results_come_back(self):
        with bench("process") as b:
            assert b.value(b.run(megabytes, 50)) == megabytes(50)

    def test_output_below_python_is_captured_in_order(self):
        with bench("process") as b:
            outcome = b.run(write_below_python)
            assert b.run(add, 1, 1).output is None
        assert outcome.output == "python\ndescriptor\nchild\nerror\nagain\n"

    def test_long_output_keeps_both_ends(self):
        with bench("process") as b:
            output = b.run(shout, 1_000_000).output
        assert output.startswith("start...")
        assert output.endswith("...end\n")
        assert "characters cut" in output
        assert len(output) < 70_000

    def test_the_users_main_module_is_not_run(self):
        with bench("process") as b:
            assert b.value(b.run(main_module)) == "omniq_nb.core.child"

    def test_functions_of_a_module_beside_the_notebook_are_found(self, tmp_path, monkeypatch):
        (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        import beside

        with bench("process") as b:
            assert b.value(b.run(beside.double, 4)) == 8
            assert b.value(b.run(where)) == str(tmp_path)

    def test_tasks_have_no_stdin(self):
        with bench("process") as b:
            assert b.value(b.run(read_stdin)) == ""
            assert b.value(b.run(add, 1, 1)) == 2

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
    def test_the_key_is_not_where_other_users_can_see_it(self):
        with bench("process") as b:
            for seen in b.value(b.run(command_line_and_environment)):
                assert KEY not in seen

    def test_a_notebooks_interrupt_does_not_reach_children(self):
        with bench("process") as b:
            child = b.value(b.run(pid))
            assert os.getpgid(child) != os.getpgid(0)

    @pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()"])
    def test_children_end_with_their_parent_even_if_busy(self, tmp_path, ending):
        script = textwrap.dedent(f"""
            import os, signal, sys, time
            sys.path[:] = {sys.path!r}
            import tests.core.test_executors as t
            import tests.core.work as work
            b = t.Bench("process", 2)
            b.executor.start()
            b.submit(work.touch_and_sleep, {str(tmp_path / "busy")!r})
            b.run(work.write_pid, {str(tmp_path / "idle")!r})
            while not os.path.exists({str(tmp_path / "busy")!r}):
                time.sleep(0.01)
            {ending}
        """)
        subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False)
        for name in ("busy", "idle"):
            child = int((tmp_path / name).read_text())
            until(lambda child=child: not is_alive(child), f"the {name} child ended")

    def test_a_child_that_does_not_understand_its_parent_ends(self):
        hello = Hello(
            key=b"k" * 32, strict=False, allow=(), prefer="msgpack", path=sys.path, cwd=None
        )
        with subprocess.Popen(
            [sys.executable, "-m", "omniq_nb.core.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as child:
            send(child.stdin, msgspec.msgpack.encode(hello))
            receive(child.stdout)
            send(child.stdin, b"of another release")
            child.wait(PATIENCE)


def test_one_process_per_task_leaves_nothing_to_the_next():
    with bench("process-per-task") as b:
        pids = {b.value(b.run(pid)) for _ in range(3)}
        assert len(pids) == 3
        assert b.value(b.run(count_calls)) == b.value(b.run(count_calls)) == 1
    assert not any(map(is_alive, pids))


CALLS: list[int] = []


def count_calls() -> int:
    CALLS.append(1)
    return len(CALLS)
