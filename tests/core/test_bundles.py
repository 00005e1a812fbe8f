"""What is large is stored once, however many tasks need it, and as long as one may need it."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from omniq_nb import OmniQ, errors
from omniq_nb.codec import Bundles, Codec
from omniq_nb.codec.bundles import BIG, Shelf
from omniq_nb.storage.base import BUNDLE_KEPT

CODEC = Codec(b"k" * 32)
MEGABYTES_4 = 500_000
"""Numbers that are as large, as an array."""

URLS = ("sqlite:///{}/tasks.db", "file://{}/tasks")


def stored(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def call_of(bundles, function, *args, **kwargs):
    packed = CODEC.pack_function(function, bundles)
    return CODEC.encode_call(packed, args, kwargs, context="c", bundles=bundles)


def made(call, bundles):
    function, args, kwargs = CODEC.decode_call(
        call, context="c", fetch=bundles.payloads.__getitem__
    )
    return function(*args, **kwargs)


# -------------------------------------------------------------------- as tasks


@pytest.mark.parametrize("url", URLS)
def test_what_a_function_captures_is_stored_once(tmp_path, url):
    table = np.arange(float(MEGABYTES_4))
    with OmniQ(url.format(tmp_path)) as oq:
        picked = oq.map(lambda i: float(table[i]), range(20))
        again = oq.map(lambda i: float(table[-i]), range(20))  # other code, the same data
        assert stored(tmp_path) < 2 * table.nbytes
        oq.workers.start(2)
        assert picked.results(timeout=60) == [float(i) for i in range(20)]
        assert again.results(timeout=60)[1] == MEGABYTES_4 - 1


@pytest.mark.parametrize("kind", ["thread", "async", "process"])
def test_the_function_of_a_long_batch_is_stored_once(tmp_path, kind):
    def plain(i):
        return i + 1

    async def coroutine(i):
        return i + 1

    plain.__doc__ = coroutine.__doc__ = text = "a long story " * 2000
    n = BIG // len(text)
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        batches = [oq.map(function, range(n)) for function in (plain, coroutine)]
        one = oq.submit(plain, 1)
        assert stored(tmp_path) < BIG
        assert one.info().bundles == (), "it is not worth it for one task"
        oq.workers.start(2, kind)
        for batch in batches:
            assert batch.results(timeout=60) == list(range(1, n + 1))
            assert len(oq.handle(batch.ids[-1]).info().bundles) == 1
        assert one.result(timeout=60) == 2


@pytest.mark.parametrize("kind", ["thread", "async", "process", "process-per-task"])
def test_every_kind_of_worker_has_the_data(tmp_path, kind):
    table, words = np.ones(MEGABYTES_4), [str(number) for number in range(200_000)]

    def total(extra):
        table[0] += 1  # arrays can be changed, as in the notebook
        return float(table.sum()) > MEGABYTES_4, len(words), sum(map(len, extra.values()))

    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        oq.workers.start(2, kind)
        batch = oq.map(total, extra={"a": np.zeros(MEGABYTES_4), "b": [1]})
        one = oq.submit(total, {"b": np.zeros(MEGABYTES_4)})
        assert batch.results(timeout=60) == [(True, 200_000, MEGABYTES_4 + 1)]
        assert one.result(timeout=60) == (True, 200_000, MEGABYTES_4)


def test_a_constant_argument_of_a_batch_is_stored_once(tmp_path):
    data = {"table": np.arange(float(MEGABYTES_4))}
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        batch = oq.map(lambda data, i: float(data["table"][i]), i=range(20), data=data, name="b")
        assert stored(tmp_path) < 2 * data["table"].nbytes
        same = oq.map(lambda data, i: float(data["table"][i]), i=range(21), data=data, name="b")
        assert same.ids[:20] == batch.ids
        oq.workers.start(2)
        assert same.results(timeout=60) == [float(i) for i in range(21)]
        first = oq.tasks.df(batch="b").query("position == 0")
        assert len(first) == 1, "the same call is the same task"


def test_a_task_that_failed_can_be_requeued_long_after(tmp_path, monkeypatch):
    table, flag = np.arange(float(MEGABYTES_4)), tmp_path / "flag"

    def pick():
        if not flag.exists():
            raise ValueError("not yet")
        return float(table[-1])

    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        oq.workers.start(1, "process")
        handle = oq.submit(pick)
        assert isinstance(handle.exception(timeout=60), ValueError)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 30 * BUNDLE_KEPT)
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        oq.purge(now() - 1000)
        flag.touch()
        handle = oq.handle(handle.id)
        assert handle.requeue()
        oq.workers.start(1, "process")
        assert handle.result(timeout=60) == MEGABYTES_4 - 1


def test_a_bundle_that_is_gone_is_told_in_words(tmp_path):
    table = np.arange(float(MEGABYTES_4))
    with OmniQ("memory://") as oq:
        handle = oq.submit(lambda: table)
        (name,) = handle.info().bundles
        del oq._async._engine.stores.task_queue._bundles[name]
        for kind in ("thread", "process"):
            oq.workers.start(1, kind)
            with pytest.raises(errors.PayloadError, match=f"bundle {name}.*Submit the call again"):
                handle.result(timeout=60)
            oq.workers.stop(kind)
            assert handle.requeue()


def test_a_schedule_holds_its_data_itself(tmp_path):
    table = np.arange(float(MEGABYTES_4))
    with OmniQ("memory://") as oq:
        schedule = oq.schedules.add("often", lambda: float(table[-1]), every=3600)
        assert schedule.template.bundles == ()
        oq.workers.start(1)
        assert oq.schedules.trigger("often").result(timeout=60) == MEGABYTES_4 - 1


# -------------------------------------------------------------------- as payloads


def test_equal_content_has_one_name():
    table, bundles = np.arange(float(MEGABYTES_4)), Bundles()
    one = call_of(bundles, lambda x: x + table[1], 1)
    two = call_of(bundles, partial(lambda table, x: table[2] + x, table.copy()), 1)
    assert CODEC.bundles_of(one) == CODEC.bundles_of(two) == tuple(bundles.payloads)
    assert len(one) + len(two) < BIG / 10
    assert (made(one, bundles), made(two, bundles)) == (2, 3)


def test_each_large_argument_is_a_bundle_of_its_own():
    bundles, text, table = Bundles(), "x" * (BIG + 1), np.ones(MEGABYTES_4)
    call = call_of(
        bundles, lambda *args, **kwargs: (args, kwargs), 1, text, table=table, small=(2,)
    )
    assert len(CODEC.bundles_of(call)) == 2
    args, kwargs = made(call, bundles)
    assert (args, kwargs["small"]) == ((1, text), (2,))
    assert kwargs["table"].tolist() == table.tolist()
    other = call_of(bundles, len, text)
    assert set(CODEC.bundles_of(other)) < set(bundles.payloads)
    assert len(bundles.payloads) == 2


def test_what_is_small_has_no_bundle():
    bundles = Bundles()
    call = call_of(bundles, lambda x: x, np.ones(10))
    assert CODEC.bundles_of(call) == ()
    assert not bundles.payloads


def test_another_bundle_in_its_place_is_refused():
    bundles = Bundles()
    call = call_of(bundles, len, "x" * (BIG + 1))
    call_of(bundles, len, "y" * (BIG + 1))
    x, y = bundles.payloads
    for wrong in (bundles.payloads[y], bundles.payloads[x][:-1], b""):
        with pytest.raises(errors.PayloadRefused):
            CODEC.decode_call(call, context="c", fetch={x: wrong}.__getitem__)


def test_strict_mode_has_bundles_of_plain_data_only():
    strict, bundles = Codec(b"k" * 32, strict=True, allow=["builtins:*"]), Bundles()
    packed = strict.pack_function(len, bundles)
    call = strict.encode_call(packed, ("x" * (BIG + 1),), {}, context="c", bundles=bundles)
    fetch = bundles.payloads.__getitem__
    assert strict.decode_call(call, context="c", fetch=fetch)[1] == ("x" * (BIG + 1),)
    pickled = call_of(bundles, len, [{object}, "x" * BIG])
    with pytest.raises(errors.PayloadRefused, match="pickle"):
        strict.decode_call(pickled, context="c", fetch=fetch)


def test_a_shelf_forgets_what_was_not_used_longest():
    shelf = Shelf(10)
    for key in "abc":
        shelf.put(key, key.upper(), 4)
    assert shelf.get("a") is None
    assert shelf.get("b") == "B"
    shelf.put("d", "D", 4)
    assert (shelf.get("c"), shelf.get("b"), shelf.get("d")) == (None, "B", "D")
    shelf.put("large", "L", 100)
    assert (shelf.get("b"), shelf.get("large")) == (None, "L")
