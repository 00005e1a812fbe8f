"""The blocking face and the awaitable one are the same, method by method."""

import inspect

import pytest

from omniq_nb import sync
from omniq_nb.core import client, handle, schedules, workers

TWINS = [
    (sync.OmniQ, client.AsyncOmniQ),
    (sync.Handle, handle.AsyncHandle),
    (sync.Batch, handle.AsyncBatch),
    (sync.Workers, workers.AsyncWorkers),
    (sync.Schedules, schedules.AsyncSchedules),
    (sync.Table, client.AsyncTable),
]
ONE_FACED = {
    "open",  # a blocking client is open from the start
    "enqueue_calls",  # what both maps are made of
    "release",  # of the workers; a client's close calls it
    "panel",  # which has a thread of its own for its loop
}


def public(kind):
    return {
        name: member
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


@pytest.mark.parametrize(("blocking", "awaitable"), TWINS, ids=lambda kind: kind.__name__)
def test_have_the_same_methods(blocking, awaitable):
    assert public(blocking).keys() - ONE_FACED == public(awaitable).keys() - ONE_FACED


@pytest.mark.parametrize(("blocking", "awaitable"), TWINS, ids=lambda kind: kind.__name__)
def test_take_the_same_arguments(blocking, awaitable):
    for name, method in public(blocking).items():
        if name in ONE_FACED:
            continue
        ours = inspect.signature(method).parameters.values()
        theirs = inspect.signature(public(awaitable)[name]).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == [
            (p.name, p.kind, p.default) for p in theirs
        ], name


@pytest.mark.parametrize(("blocking", "awaitable"), TWINS, ids=lambda kind: kind.__name__)
def test_every_public_method_is_documented(blocking, awaitable):
    for kind in (blocking, awaitable):
        for name, method in public(kind).items():
            assert method.__doc__, f"{kind.__name__}.{name}"
