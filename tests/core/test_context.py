"""What a task can know about itself while it runs."""

import asyncio
import contextvars
import threading

import pytest

from omniq_nb.core.context import CURRENT, CurrentTask, Progress, current_task
from omniq_nb.core.run import Attempt
from omniq_nb.errors import TaskCancelled
from omniq_nb.models.task import Task

TASK = Task(
    id="t1",
    name="fit",
    queue="gpu",
    batch="sweep",
    attempt=2,
    arguments='{"depth": 3}',
    metadata='{"owner": "ada"}',
)


class NoCodec:
    """These attempts are entered by hand, so nothing is decoded."""


@pytest.fixture
def reports() -> list[Progress]:
    return []


@pytest.fixture
def attempt(reports) -> Attempt:
    return Attempt(TASK, NoCodec(), "auto", reports.append)


def inside(attempt, function, *args):
    """Call it as the attempt would."""

    def enter():
        CURRENT.set(attempt)
        return function(*args)

    return contextvars.copy_context().run(enter)


def test_there_is_no_current_task_outside_of_a_task(attempt):
    assert current_task() is None
    assert inside(attempt, current_task) is not None
    assert current_task() is None


def test_a_task_knows_who_it_is(attempt):
    task = inside(attempt, current_task)
    assert (task.id, task.name, task.queue, task.batch, task.attempt) == (
        "t1",
        "fit",
        "gpu",
        "sweep",
        2,
    )
    assert task.arguments == {"depth": 3}
    assert task.metadata == {"owner": "ada"}
    assert repr(task) == "<CurrentTask fit 't1', attempt 2>"


def test_it_learns_why_it_should_end(attempt):
    task = CurrentTask(attempt)
    assert not task.cancelled
    task.check()
    attempt.stop("lost")
    attempt.stop("cancelled")
    assert task.cancelled
    with pytest.raises(TaskCancelled, match="lost the lease"):
        task.check()


def test_only_the_first_request_to_end_interrupts(attempt):
    interrupts = []
    attempt.interrupt = lambda: interrupts.append(1)
    attempt.stop("cancelled")
    attempt.stop("timeout")
    assert interrupts == [1]


def test_progress_is_reported_as_numbers_and_text(attempt, reports):
    CurrentTask(attempt).progress(1, 4, message=ValueError("odd"))
    assert reports == [Progress(TASK, 1.0, 4.0, "odd")]


def test_nothing_is_reported_once_the_attempt_is_over(attempt, reports):
    attempt.over = True
    CurrentTask(attempt).progress(1)
    assert reports == []


def test_coroutines_and_their_threads_belong_to_the_task(attempt):
    async def look():
        return current_task().id, (await asyncio.to_thread(current_task)).id

    assert inside(attempt, lambda: asyncio.run(look())) == ("t1", "t1")


def test_a_thread_belongs_to_the_task_if_it_is_given_its_context(attempt):
    seen = []

    def start():
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(lambda: seen.append(current_task()),))
        thread.start()
        thread.join()

    inside(attempt, start)
    assert seen[0].id == "t1"
