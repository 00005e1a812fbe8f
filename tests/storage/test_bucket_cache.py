"""A query over a bucket fetches what it needs and does not have: by time, and once."""

import os
import time

import pyarrow.parquet as pq
import pytest

from omniq_nb.storage.base import Query
from omniq_nb.storage.buckets import cache
from omniq_nb.storage.buckets.cache import DiskCache
from omniq_nb.testing.clouds import MemoryFilesystem, World
from omniq_nb.testing.samples import event

EARLY, LATE = 1_000_000.0, 2_000_000.0


@pytest.fixture
def fetched(monkeypatch):
    """The names of the segments that were fetched from a bucket in memory, in order."""
    names = []
    cat_file = MemoryFilesystem._cat_file

    async def noted(self, path, *arguments, **options):
        if path.endswith(".parquet"):
            names.append(path.rpartition("/")[2])
        return await cat_file(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFilesystem, "_cat_file", noted)
    return names


async def compacted(world, ids, at):
    """Let somebody else store events of that time, and compact them; give the segment's name."""
    events = world.place().event_storage()
    await events.open()
    before = segments(world)
    await events.append([event(id, at=at) for id in ids])
    await events.compact()
    await events.close()
    (name,) = segments(world) - before
    return name


def segments(world):
    return {path.rpartition("/")[2] for path in world.objects if "/compacted-" in path}


async def found(events, **query):
    scan = await events.scan(Query(**query))
    ids = scan.table["id"].to_pylist()
    for file in scan.files:
        ids += pq.read_table(file, partitioning=None)["id"].to_pylist()
    return sorted(ids)


async def test_a_query_fetches_only_segments_of_its_time(fetched, monkeypatch, tmp_path):
    world = World()
    early = await compacted(world, ["a"], EARLY)
    late = await compacted(world, ["b"], LATE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing of what compacting has read
    events = world.place().event_storage()
    await events.open()
    fetched.clear()
    assert await found(events, since=LATE) == ["b"]
    assert fetched == [late]
    fetched.clear()
    assert await found(events, until=EARLY + 1) == ["a"]
    assert fetched == [early]
    fetched.clear()
    assert await found(events, since=EARLY + 1, until=LATE) == []
    assert fetched == []
    await events.close()


async def test_a_repeated_query_fetches_only_what_is_new(fetched):
    world = World()
    old = await compacted(world, ["a"], EARLY)
    events, writer = (world.place().event_storage() for _ in range(2))
    await events.open()
    await writer.open()
    fetched.clear()
    assert await found(events) == ["a"]
    assert fetched == [old]
    fetched.clear()
    assert await found(events) == ["a"]
    assert fetched == []
    new = await compacted(world, ["b"], EARLY)
    fetched.clear()
    assert await found(events) == ["a", "b"]
    assert fetched == [new]
    await writer.append([event("c")])
    fetched.clear()
    assert await found(events) == ["a", "b", "c"]
    assert len(fetched) == 1, "the fresh segment"
    fetched.clear()
    assert await found(events) == ["a", "b", "c"]
    assert fetched == []
    await events.close()
    await writer.close()


async def test_another_process_of_this_machine_has_what_one_fetched(fetched):
    world = World()
    name = await compacted(world, ["a"], EARLY)
    for fetches in ([name], []):
        events = world.place().event_storage()
        await events.open()
        fetched.clear()
        assert await found(events) == ["a"]
        assert fetched == fetches
        await events.close()


def aged(copies, path, seconds):
    """Let a copy look as if it had not been used for so long."""
    then = time.time() - seconds
    os.utime(copies.find(path), (then, then))


def test_the_copies_that_were_not_used_for_longest_go_when_there_are_too_many():
    copies = DiskCache("place", limit=250)
    long = 2 * cache.IN_USE
    for number in range(2):
        copies.keep(f"events/{number}.parquet", bytes(100))
    aged(copies, "events/0.parquet", long)
    aged(copies, "events/1.parquet", long + 1)
    copies.keep("events/2.parquet", bytes(100))
    left = [number for number in range(3) if copies.find(f"events/{number}.parquet")]
    assert left == [0, 2]


def test_a_copy_that_may_be_in_use_stays():
    copies = DiskCache("place", limit=250)
    for number in range(4):
        copies.keep(f"events/{number}.parquet", bytes(100))
    assert all(copies.find(f"events/{number}.parquet") for number in range(4))


def test_two_places_share_no_copies():
    DiskCache("one").keep("events/1.parquet", b"data")
    assert DiskCache("other").find("events/1.parquet") is None
    assert DiskCache("one").find("events/1.parquet") is not None
