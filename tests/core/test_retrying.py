"""Whether and when a failed attempt is repeated."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_nb.core.retrying import exception_names, next_attempt
from omniq_nb.errors import ConfigError, TaskTimeout
from omniq_nb.models.task import Retry, Task

NOW = 1_000_000.0
VALUE_ERROR = ("builtins.ValueError", "builtins.Exception", "builtins.BaseException")


def task(attempt: int, lost: int = 0, **retry) -> Task:
    return Task(id="t", name="f", attempt=attempt, lost=lost, retry=Retry(**retry))


def wait(task: Task, error_types=VALUE_ERROR) -> float | None:
    at = next_attempt(task, error_types, NOW, random.Random(1))
    return None if at is None else at - NOW


def test_waits_grow_by_the_backoff_up_to_the_longest():
    waits = [
        wait(task(n, limit=9, delay=2, backoff=3, max_delay=40, jitter=0)) for n in range(1, 6)
    ]
    assert waits == [2, 6, 18, 40, 40]


def test_it_ends_with_the_last_retry():
    assert wait(task(2, limit=2, jitter=0)) is not None
    assert wait(task(3, limit=2, jitter=0)) is None
    assert wait(task(1, limit=0)) is None


def test_attempts_lost_with_a_worker_are_free():
    assert wait(task(3, lost=2, limit=1, delay=5, jitter=0)) == 5
    assert wait(task(4, lost=2, limit=1)) is None


def test_only_the_exceptions_asked_for_are_retried_with_their_subclasses():
    assert wait(task(1, limit=1, on=("builtins.Exception",))) is not None
    assert wait(task(1, limit=1, on=("builtins.OSError",))) is None


def test_never_has_the_last_word():
    both = {"on": ("builtins.ValueError",), "never": ("builtins.Exception",)}
    assert wait(task(1, limit=1, **both)) is None
    assert wait(task(1, limit=1, never=("builtins.OSError",))) is not None


@given(
    attempt=st.integers(1, 10_000),
    delay=st.floats(0, 1e6),
    backoff=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_no_wait_is_negative_or_longer_than_the_longest_with_jitter(
    attempt, delay, backoff, max_delay, jitter, seed
):
    policy = Retry(limit=10_000, delay=delay, backoff=backoff, max_delay=max_delay, jitter=jitter)
    failed = Task(id="t", name="f", attempt=attempt, retry=policy)
    at = next_attempt(failed, (), 0.0, random.Random(seed))
    assert 0 <= at <= max_delay * (1 + jitter)


def test_jitter_spreads_what_failed_together():
    rng = random.Random(1)
    times = {next_attempt(task(1, limit=1, jitter=0.5), (), 0.0, rng) for _ in range(100)}
    assert len(times) == 100
    assert all(1.0 <= time <= 1.5 for time in times)


def test_exceptions_are_named_by_type_or_name_alone_or_together():
    assert exception_names("retry_on", ValueError) == ("builtins.ValueError",)
    assert exception_names("retry_on", "ValueError") == ("builtins.ValueError",)
    assert exception_names("retry_on", [IOError, "requests.HTTPError", TaskTimeout, OSError]) == (
        "builtins.OSError",
        "requests.HTTPError",
        "omniq_nb.errors.TaskTimeout",
    )
    assert exception_names("retry_on", ()) == ()


@pytest.mark.parametrize("wrong", ["ValueErorr", int, 3, None, ["ValueError", 3]])
def test_what_is_no_exception_is_refused(wrong):
    with pytest.raises(ConfigError, match="retry_on: got"):
        exception_names("retry_on", wrong)


def test_the_nearest_exception_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean 'ValueError'"):
        exception_names("retry_on", "ValueErorr")
