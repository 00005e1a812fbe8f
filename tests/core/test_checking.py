"""What travels with a call, what cannot, and what workers lack is told before it is submitted."""

import os
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing
from types import ModuleType

import msgspec
import numpy as np
import pytest

from omniq_nb import OmniQ, errors
from omniq_nb.codec import Codec
from omniq_nb.core.provenance import environment
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.task import WorkerInfo
from tests.core.clients import add

CODEC = Codec(b"k" * 32)


@pytest.fixture
def oq():
    with OmniQ("memory://") as oq:
        yield oq


def run(oq, coroutine):
    return oq._caller.loop.call(coroutine)


def add_worker(oq, host=None, **fields):
    """Have a worker be known that is not one."""
    queue = oq._async._engine.stores.task_queue
    place = {"host": host or socket.gethostname(), "pid": os.getpid()}
    info = WorkerInfo(id="far", heartbeat_at=time.time(), **place, **fields)
    run(oq, queue.workers(info))


def test_what_travels_is_told_with_its_size(oq):
    table, small = np.ones(1_000_000), 3

    def inner():
        return table

    def fit(x, frame):
        return inner(), x + small

    check = oq.check(fit, 1, frame=list(range(100_000)))
    assert check
    assert [(it.path, it.type) for it in check.carried] == [
        ("fit -> variable `inner` -> variable `table`", "numpy.ndarray"),
        ("fit -> argument 'frame'", "list"),
    ]
    assert 8_000_000 < check.carried[0].size < 8_010_000
    assert check.carried[0].size < check.size < 9_000_000
    assert check.packages == ("numpy",)
    assert "8.0 MB  fit -> variable `inner`" in repr(check)


def test_what_cannot_travel_is_named_by_its_path_and_all_of_it(oq):
    with closing(sqlite3.connect(":memory:")) as connection:
        words = (word for word in "ab")

        def query():
            return connection.execute("select 1")

        def fit(lock):
            return query(), words

        check = oq.check(fit, {"lock": threading.Lock()})
        assert not check
        assert [trouble.partition(" cannot travel")[0] for trouble in check.troubles] == [
            "fit -> variable `query` -> variable `connection`",
            "fit -> variable `words`",
            "fit -> argument 1 -> key 'lock'",
        ]
        assert "Make it inside the function" in check.troubles[0]
        with pytest.raises(errors.NotSerializable) as submitted:
            oq.submit(fit, None)
        assert str(submitted.value) in check.troubles


def test_what_is_imported_where_it_runs_carries_nothing(oq):
    check = oq.check(add, 1, 2)
    assert (check.carried, check.packages, check.troubles) == ((), (), ())

    def reader():
        import pandas

        return pandas, msgspec

    assert oq.check(reader).packages == ("msgspec", "pandas")


def test_a_worker_with_another_python_is_named_for_functions_by_value(oq):
    add_worker(oq, python="3.99.1")
    (trouble,) = oq.check(lambda: 1).troubles
    assert "worker far runs Python 3.99.1" in trouble
    assert "Start workers with Python 3." in trouble
    assert oq.check(add, 1, 2), "it is imported there"
    add_worker(oq, python="3.99.1", state="stopped")
    assert oq.check(lambda: 1)


def test_a_package_that_a_worker_lacks_is_named(oq):
    data = msgspec.json.encode({"python": "3", "platform": "x", "packages": {"msgspec": "1"}})
    described = Event(
        id="environment:ab12",
        type=EventType.ENVIRONMENT,
        at=1.0,
        message="ab12",
        data=data.decode(),
    )
    run(oq, oq._async._engine.stores.event_storage.append([described]))
    add_worker(oq, environment="ab12")
    (trouble,) = oq.check(lambda: (np, msgspec)).troubles
    assert "worker far has no numpy: pip install numpy" in trouble


def test_a_module_of_ones_own_is_named_for_workers_elsewhere(oq, monkeypatch):
    mine = ModuleType("my_formulas")
    monkeypatch.setitem(sys.modules, "my_formulas", mine)
    assert oq.check(lambda: mine), "no worker is elsewhere"
    add_worker(oq, host="elsewhere")
    (trouble,) = oq.check(lambda: mine).troubles
    assert "oq.ship(my_formulas)" in trouble


def test_real_workers_have_what_we_have(oq):
    info = oq.workers.start(1)
    assert info.python == sys.version.split()[0]
    assert info.environment == environment().hash
    assert oq.check(lambda: np.ones(3), 1)


def test_a_function_from_another_python_is_refused_in_words():
    packed = CODEC.pack_function(lambda: 1)
    assert packed[1:3] == bytes(sys.version_info[:2])
    other = packed[:1] + bytes((3, 99)) + packed[3:]
    call = CODEC.encode_call(other, (), {}, context="c")
    with pytest.raises(errors.PayloadError, match=r"from Python 3\.99.*Start workers with"):
        CODEC.decode_call(call, context="c")


def test_what_an_earlier_release_packed_is_opened():
    packed = CODEC.pack_function(lambda: 1)
    call = CODEC.encode_call(b"v" + packed[3:], (), {}, context="c")
    assert CODEC.decode_call(call, context="c")[0]() == 1


def test_a_missing_module_is_named_with_the_remedy(monkeypatch):
    mine = ModuleType("my_formulas")
    monkeypatch.setitem(sys.modules, "my_formulas", mine)
    call = CODEC.encode_call(CODEC.pack_function(lambda: mine), (), {}, context="c")
    monkeypatch.delitem(sys.modules, "my_formulas")
    with pytest.raises(errors.PayloadError, match=r"'my_formulas' is needed.*oq\.ship"):
        CODEC.decode_call(call, context="c")
