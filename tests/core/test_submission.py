"""What is refused in the cell that submits, before anything is stored."""

import functools

import pytest

from omniq_nb import OmniQ
from omniq_nb.errors import ConfigError


def fit(lr, depth=2, *, seed=0):
    return lr * depth + seed


def injected(function):
    @functools.wraps(function)
    def call(*args):
        return function("a connection", *args)

    return call


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        client.workers.start(1)
        yield client


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'lr'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"dept": 4}, "unexpected keyword argument 'dept'"),
        ((1,), {"lr": 4}, "multiple values for argument 'lr'"),
    ],
)
def test_a_call_that_cannot_work_is_refused_before_it_is_stored(oq, args, kwargs, words):
    with pytest.raises(ConfigError, match=words) as refused:
        oq.submit(fit, *args, **kwargs)
    assert "fit(lr, depth=2, *, seed=0)" in str(refused.value)
    assert oq.sql("select * from tasks").empty


def test_a_batch_with_one_call_that_cannot_work_is_refused_whole(oq):
    with pytest.raises(ConfigError, match="unexpected keyword argument 'dept'"):
        oq.map(fit, lr=[1, 2], dept=[3])
    assert oq.sql("select * from tasks").empty


def test_a_refusal_shows_no_values(oq):
    with pytest.raises(ConfigError) as refused:
        oq.submit(fit, "hunter2", dept="hunter2")
    assert "hunter2" not in str(refused.value)


def test_calls_that_work_are_not_refused(oq):
    assert oq.submit(fit, 1, seed=3).result(timeout=60) == 5
    assert oq.submit(fit, lr=1, depth=1).result(timeout=60) == 1
    assert oq.submit(injected(lambda connection, x: x), 7).result(timeout=60) == 7
    assert oq.submit(len, "abc").result(timeout=60) == 3
    assert oq.submit(functools.partial(fit, 2), depth=4).result(timeout=60) == 8
