"""Short tasks are sent to a child while it is at another one: nothing is lost by that."""

import os
import random
import signal
import threading
import time
from collections import Counter

import pytest

from omniq_nb.core.executors import process
from omniq_nb.core.permits import CAN_RECALL, Permits
from omniq_nb.core.pipes import Receiver
from omniq_nb.models.task import State, Task
from tests.core.test_executors import Bench, bench, is_alive
from tests.core.work import PATIENCE, act, add, backtrack, crash, pid, shout, touch_and_sleep
from tests.waiting import until

pytestmark = pytest.mark.skipif(not CAN_RECALL, reason="nothing is sent ahead without permits")


@pytest.fixture
def patient(monkeypatch):
    """What is ahead stays there however long a task takes."""
    monkeypatch.setattr(process, "PATIENCE", PATIENCE)


@pytest.fixture
def hearing(monkeypatch):
    """Unless it is set, nobody hears what children say."""
    event = threading.Event()
    event.set()
    receive = Receiver.receive

    def receive_later(receiver: Receiver) -> bytes:
        frame = receive(receiver)
        assert event.wait(PATIENCE)
        return frame

    monkeypatch.setattr(Receiver, "receive", receive_later)
    yield event
    event.set()


def warm_up(b: Bench, children: int = 1) -> None:
    """Have each child learn that tasks are short."""
    seen: Counter[object] = Counter()
    while len(seen) < children or min(seen.values()) < 15:
        seen.update(b.value(b.outcome(task)) for task in [b.submit(pid) for _ in range(children)])


def behind(b: Bench, path, n: int = 20, **words) -> tuple[Task, list[Task]]:
    """A task that is under way until the file is gone, and others that were sent after it."""
    first = b.task(touch_and_sleep, str(path), **words)
    others = [b.task(add, i, i) for i in range(n)]
    b.executor.submit([first, *others])
    until(lambda: path.exists() and path.read_text(), "started")
    return first, others


def in_child(b: Bench) -> int:
    return sum(len(slot.ahead) for slot in b.executor._slots.values())


def ok(b: Bench, tasks: list[Task]) -> bool:
    return [b.value(b.outcome(task)) for task in tasks] == [2 * i for i in range(len(tasks))]


@pytest.mark.usefixtures("patient")
class TestWhatIsAhead:
    def test_runs_in_order_when_its_turn_comes(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy")
            assert in_child(b) == b.executor.backlog() == len(others)
            assert list(b.executor.running()) == [first.id]
            (tmp_path / "busy").unlink()
            b.outcome(first)
            assert ok(b, others)
            assert list(b.outcomes)[-len(others) :] == [task.id for task in others]

    def test_is_a_fair_share(self, tmp_path):
        with bench("process", 2) as b:
            warm_up(b, 2)
            _, others = behind(b, tmp_path / "busy", 9)
            assert in_child(b) <= 5
            (tmp_path / "busy").unlink()
            assert ok(b, others)

    def test_is_nothing_after_a_long_task(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            b.outcome(b.submit(time.sleep, 0.1))
            _, others = behind(b, tmp_path / "busy")
            assert in_child(b) == 0
            (tmp_path / "busy").unlink()
            assert ok(b, others)

    def test_is_nothing_big(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first = b.task(touch_and_sleep, str(tmp_path / "busy"))
            big = b.task(len, b"x" * process.MOST_BYTES)
            b.executor.submit([first, big])
            until((tmp_path / "busy").exists, "started")
            assert in_child(b) == 0
            (tmp_path / "busy").unlink()
            assert b.value(b.outcome(big)) == process.MOST_BYTES

    def test_can_be_withdrawn(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy")
            assert b.executor.withdraw() == others
            assert b.executor.backlog() == 0
            (tmp_path / "busy").unlink()
            b.outcome(first)
            b.executor.submit(others)
            assert ok(b, others)

    def test_is_taken_back_without_the_one_that_the_child_is_about_to_start(self):
        with bench("process") as b:
            warm_up(b)
            child = b.value(b.run(pid))
            os.kill(child, signal.SIGSTOP)
            first, *others = [b.task(add, i, i) for i in range(9)]
            b.executor.submit([first, *others])
            until(b.executor.running, "taken")
            assert b.executor.withdraw() == others
            os.kill(child, signal.SIGCONT)
            assert b.value(b.outcome(first)) == 0

    def test_can_be_cancelled(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            _, others = behind(b, tmp_path / "busy")
            b.executor.cancel(others[7].id, "cancelled")
            outcome = b.outcome(others[7])
            assert (outcome.to, outcome.released) == (State.CANCELLED, True)
            (tmp_path / "busy").unlink()
            assert all(
                b.outcome(task).to is State.SUCCEEDED for task in others if task != others[7]
            )

    def test_does_not_suffer_when_the_child_is_killed(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy")
            os.kill(int((tmp_path / "busy").read_text()), signal.SIGKILL)
            assert b.outcome(first).error.startswith("WorkerLost")
            assert ok(b, others)

    def test_does_not_suffer_from_a_crash_or_a_stray_signal(self):
        with bench("process") as b:
            warm_up(b)
            bad = [b.task(crash), b.task(os.kill, 0, signal.SIGTERM), b.task(os._exit, 3)]
            good = [b.task(add, i, i) for i in range(9)]
            tasks = [*good[:3], bad[0], *good[3:6], bad[1], *good[6:8], bad[2], good[8]]
            b.executor.submit(tasks)
            assert ok(b, good)
            assert all(b.outcome(task).error.startswith("WorkerLost") for task in bad)

    def test_does_not_suffer_when_the_time_of_another_is_over(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy", timeout=0.5)
            assert b.outcome(first).error.startswith("TaskTimeout")
            assert ok(b, others)

    def test_does_not_suffer_when_another_is_cancelled(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy")
            b.executor.cancel(first.id, "cancelled")
            assert b.outcome(first).to is State.CANCELLED
            assert ok(b, others)

    def test_comes_back_when_the_executor_stops(self, tmp_path):
        with bench("process") as b:
            warm_up(b)
            first, others = behind(b, tmp_path / "busy")
            assert b.executor.stop(0.05) == [*others, first]

    def test_is_left_to_others_by_a_slot_that_leaves(self, tmp_path):
        with bench("process", 2) as b:
            warm_up(b, 2)
            first, others = behind(b, tmp_path / "busy", 9)
            until(lambda: b.executor.backlog() == in_child(b), "the other slot did its share")
            b.executor.resize(1)
            (tmp_path / "busy").unlink()
            b.outcome(first)
            assert ok(b, others)

    def test_does_not_show_in_the_output_of_another(self):
        with bench("process") as b:
            warm_up(b)
            tasks = [b.task(shout, i % 4 * 30_000) for i in range(40)]
            b.executor.submit(tasks)
            outputs = [b.outcome(task).output for task in tasks]
        for i, output in enumerate(outputs):
            assert output.startswith("start")
            assert output.endswith("end\n")
            assert output.count("start") == output.count("end") == 1
            assert ("characters cut" in output) == (i % 4 == 3)


@pytest.mark.usefixtures("patient")
class TestAChildThatHasGoneOn:
    """It has started a task that was ahead, and nobody has heard yet that the one before ended."""

    @pytest.fixture(params=[None])
    def gone_on(self, request, hearing, tmp_path):
        with bench("process") as b:
            warm_up(b)
            hearing.clear()
            path = tmp_path / "second"
            first = b.task(add, 1, 1, timeout=request.param)
            second, third = b.task(touch_and_sleep, str(path)), b.task(add, 2, 2)
            b.executor.submit([first, second, third])
            until(lambda: path.exists() and path.read_text(), "it has gone on")
            yield b, (first, second, third), path

    def test_is_not_stopped_because_of_the_one_before(self, gone_on, hearing):
        b, (first, second, third), path = gone_on
        b.executor.cancel(first.id, "cancelled")
        hearing.set()
        path.unlink()
        assert b.value(b.outcome(first)) == 2
        assert b.outcome(second).to is State.SUCCEEDED
        assert b.value(b.outcome(third)) == 4

    def test_is_stopped_as_soon_as_it_is_heard(self, gone_on, hearing):
        b, (first, second, third), _ = gone_on
        b.executor.cancel(second.id, "cancelled")
        hearing.set()
        assert b.value(b.outcome(first)) == 2
        assert b.outcome(second).to is State.CANCELLED
        assert b.value(b.outcome(third)) == 4

    @pytest.mark.parametrize("gone_on", [0.2], indirect=True)
    def test_does_not_lose_its_place_when_the_time_of_the_one_before_is_over(
        self, gone_on, hearing
    ):
        b, (first, second, third), path = gone_on
        assert b.outcome(first).error.startswith("TaskTimeout")
        assert len(b.executor._slots) == 1
        hearing.set()
        path.unlink()
        assert b.outcome(second).to is State.SUCCEEDED
        assert b.value(b.outcome(third)) == 4

    def test_gives_back_what_it_has_not_started(self, gone_on, hearing):
        b, (_, second, third), path = gone_on
        assert b.executor.withdraw() == [third]
        assert b.executor.backlog() == 1
        hearing.set()
        path.unlink()
        assert b.outcome(second).to is State.SUCCEEDED

    def test_costs_what_it_was_at_when_it_is_killed(self, gone_on, hearing):
        b, (first, second, third), path = gone_on
        os.kill(int(path.read_text()), signal.SIGKILL)
        until(lambda: not is_alive(int(path.read_text())), "killed")
        hearing.set()
        assert b.value(b.outcome(first)) == 2
        assert b.outcome(second).error.startswith("WorkerLost")
        assert b.value(b.outcome(third)) == 4

    def test_is_ended_when_the_executor_stops(self, gone_on, hearing):
        b, (first, second, third), path = gone_on
        threading.Timer(0.5, hearing.set).start()
        assert {task.id for task in b.executor.stop(0)} == {first.id, second.id, third.id}
        assert not is_alive(int(path.read_text()))
        b.take()
        assert not {first.id, second.id, third.id} & set(b.outcomes)

    def test_shows_nothing_of_it_under_the_name_of_the_one_before(self, hearing, tmp_path):
        with bench("process") as b:
            warm_up(b)
            hearing.clear()
            journal = tmp_path / "journal"
            first = b.task(add, 1, 1)
            second = b.task(act, str(journal), "of the second", 3.0, "")
            b.executor.submit([first, second])
            until(journal.exists, "it has gone on")
            until(lambda: time.time() - b.executor.running()[first.id] > 0.5, "may be looked at")
            assert b.executor.printed() == []
            hearing.set()
            assert until(b.executor.printed, "printed") == [(second, 0, "of the second\n")]


def test_who_is_stuck_in_c_code_keeps_nothing_from_the_others(tmp_path, monkeypatch):
    recalled: set[int] = set()
    recall = Permits.recall

    def recall_and_note(permits: Permits) -> set[int]:
        numbers = recall(permits)
        recalled.update(numbers)
        return numbers

    monkeypatch.setattr(Permits, "recall", recall_and_note)
    with bench("process", 2) as b:
        warm_up(b, 2)
        stuck = b.task(backtrack, str(tmp_path / "stuck"))
        others = [b.task(add, i, i) for i in range(20)]
        b.executor.submit([stuck, *others])
        assert ok(b, others)
        assert list(b.executor.running()) == [stuck.id]
        assert recalled
        b.executor.cancel(stuck.id, "cancelled")
        assert b.outcome(stuck).to is State.CANCELLED


@pytest.mark.parametrize("seed", range(4))
def test_each_task_comes_back_once_and_runs_at_most_once(seed, tmp_path):
    rng = random.Random(seed)
    journal = tmp_path / "journal"
    journal.touch()
    words: dict[str, str] = {}
    withdrawn: list[str] = []
    with bench("process", 2) as b:
        warm_up(b, 2)
        b.outcomes.clear()
        for turn in range(25):
            tasks = []
            for i in range(rng.choice([1, 5, 30])):
                ending = rng.choices(["", "raise", "exit"], [60, 8, 1])[0]
                seconds = rng.choices([0.0, 0.003, 0.06], [30, 3, 1])[0]
                tasks.append(b.task(act, str(journal), f"{turn}-{i}", seconds, ending))
                words[tasks[-1].id] = f"{turn}-{i}"
            b.executor.submit(tasks)
            time.sleep(rng.choice([0, 0.001, 0.02]))
            if rng.random() < 0.2:
                for task in rng.sample(tasks, min(3, len(tasks))):
                    b.executor.cancel(task.id, "cancelled")
            if rng.random() < 0.1:
                withdrawn += [task.id for task in b.executor.withdraw()]
            if rng.random() < 0.2:
                b.executor.resize(rng.choice([1, 2, 3]))
            if rng.random() < 0.2:
                until(lambda: not b.executor.backlog(), "all are started")
            b.take()
        abandoned = [task.id for task in b.executor.stop(rng.choice([None, 0.0]))]
        b.take()
    assert sorted([*withdrawn, *abandoned, *b.outcomes]) == sorted(words)
    ran = Counter(journal.read_text().split())
    assert not {word: times for word, times in ran.items() if times > 1}
    assert not {words[task_id] for task_id in withdrawn} & set(ran)
    for task_id, outcome in b.outcomes.items():
        word = words[task_id]
        if outcome.released:
            assert word not in ran
        elif outcome.to is State.SUCCEEDED:
            assert (b.value(outcome), outcome.output) == (word, f"{word}\n")
        elif outcome.to is State.FAILED:
            assert outcome.output == f"{word}\n"
        else:
            assert f"{word}\n".startswith(outcome.output or "")
