"""Data frames as results: exact on their way, Parquet where they lie, one frame of many."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from omniq_nb import OmniQ
from omniq_nb.codec import Codec, split_table
from omniq_nb.errors import ConfigError, PayloadRefused

FRAMES = {
    "numbers": pd.DataFrame({"a": [1, 2, 3], "b": [0.5, np.nan, 2.0]}),
    "index": pd.DataFrame({"a": [1, 2]}, index=pd.Index([10, 20], name="key")),
    "times": pd.DataFrame({"at": pd.date_range("2026-01-31", periods=3, freq="h", tz="UTC")}),
    "categories": pd.DataFrame({"c": pd.Categorical(["x", "y", "x"], ordered=True)}),
    "spans": pd.DataFrame({"d": pd.to_timedelta([1, 2], unit="s")}),
    "empty": pd.DataFrame({"a": pd.Series([], dtype="int64")}),
    "polars": pl.DataFrame({"a": [1, None], "s": ["x", "y"], "l": [[1], [2, 3]]}),
    "arrow": pa.table({"a": pa.array([1, None], pa.int32()), "s": ["x", "y"]}),
    "arrow words": pa.table({"w": pa.array(["x", "x"]).dictionary_encode()}),
}


def same(one, other):
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_freq=True)
        return True
    return type(one) is type(other) and one.schema == other.schema and one.equals(other)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("strict", [False, True])
def test_frames_come_back_equal(name, strict):
    codec = Codec(b"key", strict=strict)
    payload = codec.encode(FRAMES[name], context="c")
    assert same(FRAMES[name], codec.decode(payload, context="c"))
    with pytest.raises(PayloadRefused):
        codec.decode(payload, context="another")
    with pytest.raises(PayloadRefused):
        codec.open_table(payload[:-9] + b"!" + payload[-8:], context="c")


@pytest.mark.parametrize("name", ["numbers", "times", "polars", "arrow"])
def test_their_payload_is_parquet_that_others_read(name, tmp_path):
    payload = Codec(b"key").encode(FRAMES[name], context="c")
    head, file = split_table(payload)
    (tmp_path / "f.parquet").write_bytes(file)
    assert len(duckdb.sql(f"from '{tmp_path}/f.parquet'").fetchall()) == len(FRAMES[name])
    assert head + file == payload


def test_what_parquet_cannot_hold_travels_otherwise():
    odd = pd.DataFrame({"o": [object, print]})
    codec = Codec(b"key")
    payload = codec.encode(odd, context="c")
    assert split_table(payload) is None
    assert codec.open_table(payload, context="c") is None
    assert codec.decode(payload, context="c").equals(odd)


# ---------------------------------------------------------------- of a batch


def walk(seed, steps=2_000):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"seed": seed, "step": range(steps), "at": random.normal(size=steps)})
    return frame.assign(extra=True) if seed == 3 else frame


@pytest.mark.parametrize("url", ["memory://", "sqlite:///t.db", "./history"])
def test_the_frames_of_a_batch_are_one(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with OmniQ(url) as oq:
        oq.workers.start(2)
        batch = oq.map(walk, [1, 2, 3], name="walks")
        frame = batch.frame(timeout=60)
        assert list(frame.columns) == ["seed", "step", "at", "extra"]
        assert frame.seed.tolist() == [1] * 2_000 + [2] * 2_000 + [3] * 2_000
        assert frame["at"].tolist()[:2_000] == walk(1)["at"].tolist()
        assert batch.frame("polars").height == 6_000
        assert batch.frame("arrow").num_rows == 6_000
    if url == "./history":
        files = f"{tmp_path}/history/results/values/*.parquet"
        rows = duckdb.sql(f"select count(*) from read_parquet('{files}', union_by_name = true)")
        assert rows.fetchall() == [(6_000,)]


@pytest.mark.xdist_group("moto")
def test_the_same_in_a_bucket(servers):
    from omniq_nb import OmniQConfig

    with OmniQ(OmniQConfig(task_queue_backend=servers("moto").backend())) as oq:
        oq.workers.start(2)
        frame = oq.map(walk, [1, 2, 3], name="walks").frame(timeout=60)
        assert len(frame) == 6_000


def test_a_task_that_gives_no_frame_is_named():
    with OmniQ("memory://") as oq:
        oq.workers.start(1)
        batch = oq.map(len, ["a"], name="lengths")
        with pytest.raises(ConfigError, match=r"batch.frame\(\): got \"int from task"):
            batch.frame(timeout=60)


def test_frames_with_python_objects_are_united_all_the_same():
    def named(word):
        return pd.DataFrame({"word": pd.Series([word], dtype=object)})

    with OmniQ("memory://") as oq:
        oq.workers.start(1)
        frame = oq.map(named, ["a", "b"], name="words").frame(timeout=60)
        assert frame.word.tolist() == ["a", "b"]


def test_a_failed_task_raises_what_it_raised():
    with OmniQ("memory://") as oq:
        oq.workers.start(1)
        with pytest.raises(ZeroDivisionError):
            oq.map(lambda n: 1 / n, [0], name="over").frame(timeout=60)


async def test_asynchronous_code_has_it_too():
    from omniq_nb import AsyncOmniQ

    async with AsyncOmniQ("memory://") as oq:
        await oq.workers.start(1)
        batch = await oq.map(walk, [1, 2], name="walks")
        assert len(await batch.frame(timeout=60)) == 4_000
