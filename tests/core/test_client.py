"""The main job as a user does it, over each local backend."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from queue import SimpleQueue

import numpy as np
import pandas as pd
import pytest

from omniq_nb import AsyncOmniQ, OmniQ, Retry, State, current_task, errors
from omniq_nb.core.executors import slots
from tests.core.clients import (
    BACKENDS,
    add,
    add_later,
    backends,
    divide,
    fail_until,
    url_of,
    wait_until_cancelled,
)
from tests.waiting import until


@pytest.fixture
def oq(tmp_path, backend):
    with OmniQ(url_of(backend, tmp_path)) as oq:
        yield oq


@backends
class TestHandle:
    def test_gives_the_value(self, oq):
        oq.workers.start(2)
        assert oq.submit(add, 1, b=2).result(timeout=30) == 3

    def test_returns_at_once_and_waits_for_a_worker(self, oq):
        handle = oq.submit(add, 1, 2)
        assert handle.status() is State.QUEUED
        assert not handle.done()
        with pytest.raises(errors.WaitTimeout, match="the work goes on") as caught:
            handle.result(timeout=0.05)
        assert "no worker serves the queue 'default': oq.workers.start(2)" in str(caught.value)
        oq.workers.start(1)
        assert handle.result(timeout=30) == 3
        assert handle.status() is State.SUCCEEDED

    def test_raises_what_the_function_raised_with_the_workers_traceback_as_a_note(self, oq):
        oq.workers.start(1)
        handle = oq.submit(divide, 1, 0)
        with pytest.raises(ZeroDivisionError) as caught:
            handle.result(timeout=30)
        assert "return a / b" in "".join(caught.value.__notes__)
        assert isinstance(handle.exception(timeout=30), ZeroDivisionError)
        assert handle.status() is State.FAILED

    def test_has_no_exception_when_it_succeeded(self, oq):
        oq.workers.start(1)
        assert oq.submit(add, 1, 2).exception(timeout=30) is None

    def test_keeps_what_was_printed_and_logged(self, oq):
        def talk():
            print("to stdout")
            print("to stderr", file=sys.stderr)
            logging.getLogger("mine").warning("to the log")

        oq.workers.start(1)
        output = oq.submit(talk).output(timeout=30)
        assert "to stdout" in output
        assert "to stderr" in output
        assert "to the log" in output

    def test_can_be_awaited_in_an_event_loop(self, oq):
        oq.workers.start(1)

        async def main():
            return await oq.submit(add, 1, 2)

        assert asyncio.run(main()) == 3

    def test_blocks_in_a_running_loop_like_a_notebook_cell(self, oq):
        oq.workers.start(1)

        async def cell():
            return oq.submit(add, 1, 2).result(timeout=30)

        assert asyncio.run(cell()) == 3

    def test_of_an_unknown_task_says_so(self, oq):
        with pytest.raises(errors.UnknownTask, match="nonsense"):
            oq.handle("nonsense").result(timeout=30)

    def test_a_client_does_not_travel(self, oq):
        with pytest.raises(errors.NotSerializable, match="stays in the process"):
            oq.submit(add, oq, 1)


@backends
class TestValues:
    @pytest.mark.parametrize(
        "value",
        [None, 1, 1.5, "ä\n", b"\x00", [1, [2]], {"a": {"b": [1]}}, (1, 2), {1, 2}, 2**80],
        ids=repr,
    )
    def test_come_back_as_what_they_were(self, oq, value):
        oq.workers.start(1)
        returned = oq.submit(lambda given: given, value).result(timeout=30)
        assert returned == value
        assert type(returned) is type(value)

    def test_data_frames_come_back_as_what_they_were(self, oq):
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([3, 4], name="i"))
        oq.workers.start(1)
        pd.testing.assert_frame_equal(oq.submit(lambda: frame).result(timeout=30), frame)

    def test_arrays_come_back_as_what_they_were(self, oq):
        array = np.arange(6.0).reshape(2, 3)
        oq.workers.start(1)
        np.testing.assert_array_equal(oq.submit(lambda: array).result(timeout=30), array)

    def test_that_cannot_travel_fail_the_task_in_words(self, oq):
        oq.workers.start(1)
        error = oq.submit(threading.Lock).exception(timeout=30)
        assert "lock" in str(error)

    def test_arguments_that_cannot_travel_are_refused_when_submitting(self, oq):
        with pytest.raises(errors.NotSerializable, match="lock"):
            oq.submit(len, threading.Lock())


@backends
class TestBatch:
    def test_a_grid_makes_every_combination_in_order(self, oq):
        oq.workers.start(2)
        batch = oq.map(lambda a, b: (a, b), a=[1, 2], b=(3, 4))
        assert batch.results(timeout=30) == [(1, 3), (1, 4), (2, 3), (2, 4)]

    def test_iterables_are_walked_together(self, oq):
        oq.workers.start(2)
        assert oq.map(add, range(5), range(5)).results(timeout=30) == [0, 2, 4, 6, 8]

    def test_the_same_name_again_runs_only_what_is_missing(self, oq):
        oq.workers.start(1)
        first = oq.map(divide, a=[1.0], b=[0, 1, 2], name="sweep/1 'ä'")
        first.wait(timeout=30)
        again = oq.map(divide, a=[1.0], b=[0, 1, 2, 4], name="sweep/1 'ä'")
        again.wait(timeout=30)
        assert again.ids[:3] == first.ids
        attempts = oq.sql(
            "select task_id, count(*) as n from events where type='started' group by 1"
        )
        started = dict(zip(attempts["task_id"], attempts["n"], strict=True))
        # The failed one ran again, the new one ran, the others did not.
        assert [started[task_id] for task_id in again.ids] == [2, 1, 1, 1]

    def test_a_mended_function_replaces_the_failed_one(self, oq):
        def f(x):
            return 1 / x

        oq.workers.start(1)
        assert isinstance(
            oq.map(f, [0], name="b").results(30, errors="return")[0], ZeroDivisionError
        )

        def f(x):
            return "mended"

        assert oq.map(f, [0], name="b").results(timeout=30) == ["mended"]

    def test_errors_can_be_returned_in_place(self, oq):
        oq.workers.start(1)
        one, two = oq.map(divide, [1, 1], [0, 1]).results(timeout=30, errors="return")
        assert isinstance(one, ZeroDivisionError)
        assert two == 1.0

    def test_completes_one_by_one(self, oq):
        oq.workers.start(2)
        batch = oq.map(add, range(20), range(20))
        assert {h.result() for h in batch.as_completed(timeout=30)} == {2 * i for i in range(20)}

    def test_is_found_again_by_name(self, oq):
        oq.workers.start(1)
        ids = oq.map(add, range(3), range(3), name="found").ids
        assert oq.batch("found").ids == ids
        assert oq.batch("found").results(timeout=30) == [0, 2, 4]
        with pytest.raises(errors.UnknownTask, match="lost"):
            oq.batch("lost")

    def test_is_a_table(self, oq):
        oq.workers.start(1)
        batch = oq.map(lambda lr, depth: {"score": lr * depth}, lr=[0.5, 1.0], depth=[2])
        batch.wait(timeout=30)
        frame = batch.df()
        assert list(frame["lr"]) == [0.5, 1.0]
        assert list(frame["state"]) == ["succeeded", "succeeded"]
        assert (frame["duration"] >= 0).all()

    def test_empty_is_done(self, oq):
        assert oq.map(add, [], []).results(timeout=5) == []

    def test_many_tasks_of_one_client(self, oq):
        oq.workers.start(2)
        n = 2000
        assert sum(oq.map(add, range(n), range(n)).results(timeout=120)) == n * (n - 1)

    def test_counts_and_repr_tell_the_states(self, oq):
        batch = oq.map(add, range(3), range(3), name="r")
        assert batch.counts() == {State.QUEUED: 3}
        assert "3 queued" in repr(batch)


@backends
class TestRetries:
    def test_until_it_works(self, oq):
        oq.workers.start(1)
        task = oq.task(retries=3, retry_delay=0)(fail_until)
        handle = task.submit(3)
        assert handle.result(timeout=30) == 3
        assert handle.info().attempt == 3
        types = oq.sql("select type from events where task_id = ? order by created_at", [handle.id])
        assert list(types["type"]).count("retried") == 2

    def test_end_in_the_dead_letters_and_can_be_requeued(self, oq):
        oq.workers.start(1)
        handle = oq.task(retries=1, retry_delay=0)(fail_until).submit(3)
        with pytest.raises(ConnectionError, match="attempt 2"):
            handle.result(timeout=30)
        (dead,) = oq.dead_letters()
        assert dead.id == handle.id
        assert dead.error == "ConnectionError: attempt 2"
        assert oq.requeue(dead) == 1
        with pytest.raises(ConnectionError):
            handle.result(timeout=30)
        assert oq.dead_letters()[0].attempt == 2

    def test_only_after_the_exceptions_that_were_named(self, oq):
        oq.workers.start(1)
        picky = oq.task(retries=3, retry_delay=0, retry_on=[ValueError])(fail_until).submit(3)
        never = oq.task(retries=3, retry_delay=0, never_retry=[OSError])(fail_until).submit(3)
        base = oq.task(retries=3, retry_delay=0, retry_on=[OSError])(fail_until).submit(3)
        assert isinstance(picky.exception(timeout=30), ConnectionError)
        assert picky.info().attempt == 1
        assert isinstance(never.exception(timeout=30), ConnectionError)
        assert base.result(timeout=30) == 3

    def test_as_one_policy(self, oq):
        oq.workers.start(1)
        task = oq.task(retries=Retry(limit=2, delay=0.0))(fail_until)
        assert task.submit(3).result(timeout=30) == 3


@backends
class TestTimes:
    def test_a_timeout_fails_the_attempt(self, oq):
        oq.workers.start(2)
        handle = oq.task(timeout=0.2)(wait_until_cancelled).submit()
        with pytest.raises(TimeoutError, match=r"0\.2"):
            handle.result(timeout=30)

    def test_a_delay_is_kept(self, oq):
        oq.workers.start(1)
        handle = oq.task(delay=0.5)(time.time).submit()
        submitted = handle.info().created_at
        assert handle.result(timeout=30) >= submitted + 0.5

    def test_a_ttl_expires_without_any_worker(self, oq):
        handle = oq.task(ttl=0.1)(add).submit(1, 2)
        with pytest.raises(errors.TaskExpired):
            handle.result(timeout=30)
        assert handle.status() is State.EXPIRED

    def test_a_result_is_purged_after_its_ttl(self, oq):
        oq.workers.start(1)
        handle = oq.task(result_ttl=0.01)(add).submit(1, 2)
        assert handle.result(timeout=30) == 3
        time.sleep(0.05)
        oq.purge(before=0)
        with pytest.raises(errors.ResultExpired):
            oq.handle(handle.id).result(timeout=30)


@backends
class TestOrder:
    def test_priorities_run_first_within_the_queues_in_the_order_asked(self, oq):
        done: list[str] = []
        for queue, priority, label in [
            ("low", 9, "low 9"),
            ("high", 1, "high 1"),
            ("high", 5, "high 5"),
            ("high", 1, "high 1 later"),
        ]:
            oq.task(queue=queue, priority=priority)(add).options(name=label, tags=["order"]).submit(
                1, 1
            )
        oq.workers.start(1, queues=["high", "low"])
        oq.workers.stop(drain=True, timeout=30)
        done = list(oq.sql("select name from results order by started_at")["name"])
        assert done == ["high 5", "high 1", "high 1 later", "low 9"]

    def test_a_task_waits_for_the_tasks_before_it(self, oq):
        oq.workers.start(2)
        first = oq.task(delay=0.2)(add).submit(1, 2)
        second = oq.task(after=first)(add).submit(3, 4)
        assert second.status() is State.BLOCKED
        assert second.result(timeout=30) == 7
        broken = oq.submit(divide, 1, 0)
        never = oq.task(after=[broken])(add).submit(1, 1)
        with pytest.raises(errors.TaskCancelled, match="did not succeed"):
            never.result(timeout=30)

    def test_a_key_makes_two_submissions_one_task(self, oq):
        one, two = (oq.task(key="k")(add).submit(1, 1) for _ in range(2))
        assert one.id == two.id
        assert oq.counts() == {"default": {State.QUEUED: 1}}


@backends
class TestCancel:
    def test_queued_work(self, oq):
        handle = oq.submit(add, 1, 2)
        assert handle.cancel()
        assert not handle.cancel()
        with pytest.raises(errors.TaskCancelled):
            handle.result(timeout=30)
        assert list(oq.results.df()["state"]) == ["cancelled"]

    def test_running_work_that_asks(self, oq):
        oq.workers.start(1)
        handle = oq.submit(wait_until_cancelled)
        while handle.status() is not State.RUNNING:
            time.sleep(0.01)
        assert handle.cancel()
        with pytest.raises(errors.TaskCancelled):
            handle.result(timeout=30)
        # The thread was told, and is free again.
        assert oq.submit(add, 1, 2).result(timeout=30) == 3

    def test_a_whole_batch(self, oq):
        batch = oq.map(add, range(5), range(5))
        assert batch.cancel() == 5
        assert batch.counts() == {State.CANCELLED: 5}
        assert batch.requeue() == 5
        oq.workers.start(1)
        assert batch.results(timeout=30) == [0, 2, 4, 6, 8]


@backends
@pytest.mark.parametrize("kind", ["thread", "async", "process"])
class TestWorkers:
    def test_run_functions_of_both_colours(self, oq, kind):
        oq.workers.start(2, kind=kind)
        assert oq.submit(add, 1, 2).result(timeout=60) == 3
        assert oq.submit(add_later, 1, 2).result(timeout=60) == 3
        assert oq.submit(lambda: "by value").result(timeout=60) == "by value"

    def test_start_twice_is_one_worker_of_the_new_size(self, oq, kind):
        oq.workers.start(1, kind=kind)
        assert oq.workers.start(3, kind=kind).concurrency == 3
        running = [info for info in oq.workers.list() if info.state == "running"]
        assert len(running) == 1

    def test_drain_and_stop(self, oq, kind):
        batch = oq.map(add, range(30), range(30))
        oq.workers.start(2, kind=kind)
        oq.workers.stop(drain=True, timeout=60)
        assert batch.counts() == {State.SUCCEEDED: 30}
        assert [info.state for info in oq.workers.list()] == ["stopped"]


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "memory"])
def test_what_runs_when_the_client_closes_is_given_back(tmp_path, backend):
    with OmniQ(url_of(backend, tmp_path)) as oq:
        oq.workers.start(1)
        handle = oq.submit(wait_until_cancelled)
        waiting = oq.submit(add, 1, 2)
        while handle.status() is not State.RUNNING:
            time.sleep(0.01)
        oq.close(timeout=0)
    with OmniQ(url_of(backend, tmp_path)) as oq:
        assert oq.handle(handle.id).status() is State.QUEUED
        assert oq.handle(waiting.id).status() is State.QUEUED


@backends
async def test_the_awaitable_client_does_the_same(tmp_path, backend):
    async with AsyncOmniQ(url_of(backend, tmp_path)) as oq:
        await oq.workers.start(2)

        @oq.task(retries=1)
        def double(x):
            print("doubling", x)
            return 2 * x

        assert double(4) == 8
        handle = await double.submit(4)
        assert await handle == 8
        assert await handle.status() is State.SUCCEEDED
        assert "doubling 4" in await handle.output()
        batch = await double.map(range(10), name="doubles")
        assert await batch.results(timeout=30) == [2 * i for i in range(10)]
        assert sorted([await h async for h in batch.as_completed()]) == [2 * i for i in range(10)]
        assert await oq.gather(*batch) == [2 * i for i in range(10)]
        assert (await oq.batch("doubles")).ids == batch.ids
        frame = await oq.sql("select sum(value) as total from results where batch = 'doubles'")
        assert frame["total"][0] == 90


@backends
def test_progress_reaches_the_events(oq):
    def climb():
        current_task().progress(1, 2, "half way")

    oq.workers.start(1)
    oq.submit(climb).result(timeout=30)
    frame = oq.events.df(type="progress")
    assert list(frame["message"]) == ["half way"]
    assert current_task() is None


@backends
def test_the_example_of_the_documentation_runs_verbatim(oq):
    oq.workers.start(2)
    fit = oq.task(lambda lr, depth: lr * depth)
    fit.map(lr=[0.1, 0.2], depth=[2, 4, 8], name="sweep-1").wait(timeout=30)
    frame = oq.sql("select depth, avg(value) from results where batch = 'sweep-1' group by 1")
    assert sorted(frame["depth"]) == [2, 4, 8]


def test_a_script_that_never_closes_its_client_ends_without_a_word(tmp_path):
    script = (
        "from omniq_nb import OmniQ\n"
        f"oq = OmniQ('sqlite:///{tmp_path / 'omniq.db'}')\n"
        "oq.workers.start(2)\n"
        "print(oq.submit(abs, -1).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_task_that_was_given_back_runs_in_the_free_slot(monkeypatch):
    """A beat finds it not begun yet beside a long one, and gives it back to the queue."""
    hold, go = threading.Event(), threading.Event()

    class Feed(SimpleQueue):
        def get(self):
            task_id = super().get()
            if hold.is_set():
                go.wait(30)
            return task_id

    monkeypatch.setattr(slots, "SimpleQueue", Feed)
    with OmniQ("memory://") as oq:
        oq.workers.start(2)
        long = oq.submit(wait_until_cancelled)
        until(lambda: long.status() is State.RUNNING, "the long one runs")
        hold.set()
        short = oq.submit(add, 1, 2)
        until(lambda: "released" in set(oq.events.df().type), "the short one is given back")
        hold.clear()
        go.set()
        assert short.result(timeout=30) == 3
        long.cancel()


def test_tasks_that_turn_out_long_are_left_to_others(tmp_path, monkeypatch):
    """Many were claimed ahead because those before were short."""
    monkeypatch.setattr("omniq_nb.core.worker.HOARDING", 0.2)
    url = url_of("sqlite", tmp_path)
    with OmniQ(url) as one, OmniQ(url) as other:
        one.workers.start(1)
        one.map(add, range(1000), b=1).wait()
        naps = one.map(time.sleep, [0.05] * 60)
        until(lambda: naps.counts().get(State.SUCCEEDED), "the first one is over")
        other.workers.start(1)
        assert {result.worker for result in naps.wait()} == {
            worker.id for client in (one, other) for worker in client.workers.list()
        }
