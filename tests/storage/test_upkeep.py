"""Compacting by hand, and the deep check: what is torn, missing or left over is found."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from omniq_nb import OmniQ
from omniq_nb.cli.commands import cli
from omniq_nb.config.options import FileOptions
from omniq_nb.models.task import Settle, State
from omniq_nb.storage.file import FilePlace
from omniq_nb.storage.journal.queue import BLOB
from omniq_nb.storage.objects.results import BIG
from omniq_nb.testing.clouds import World
from omniq_nb.testing.samples import event, result, task

LONG_AGO = "0000000000000001"


class Folder:
    """A folder, looked at as objects by path."""

    def __init__(self, path):
        self._path = path

    def place(self):
        return FilePlace(str(self._path), FileOptions())

    def paths(self, part):
        files = (file for file in self._path.rglob("*") if file.is_file())
        return sorted(name for file in files if part in (name := str(file)))

    def write(self, path, data):
        file = self._path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def delete(self, path):
        (self._path / path).unlink()


class Bucket:
    """The same of a bucket in memory."""

    def __init__(self, path):
        self._world = World()

    def place(self):
        return self._world.place()

    def paths(self, part):
        return sorted(path for path in self._world.objects if part in path)

    def write(self, path, data):
        self._world.objects[path if path.startswith("b/") else f"b/{path}"] = (data, 1.0)

    def delete(self, path):
        del self._world.objects[path]


@pytest.fixture(params=[Folder, Bucket])
def pieces(request, tmp_path):
    return request.param(tmp_path / "here")


async def findings(store, repair=False):
    return {one.where: one for one in await store.inspect(repair)}


async def a_queue(pieces):
    queue = pieces.place().task_queue()
    await queue.open()
    await queue.add([task("small"), task("big", call=b"x" * (BLOB + 1))])
    return queue


async def test_nothing_is_wrong_with_what_was_just_written(pieces):
    place = pieces.place()
    queue, results, events = place.task_queue(), place.result_storage(), place.event_storage()
    for store in (queue, results, events):
        await store.open()
    await queue.add([task("t", call=b"x" * (BLOB + 1))])
    await results.put([result("t", payload=b"y" * BIG)])
    await events.append([event("e")])
    for store in (queue, results, events):
        await store.compact()
        assert await store.inspect(True) == []
        await store.close()


async def test_a_torn_entry_and_a_lost_blob_are_named(pieces):
    queue = await a_queue(pieces)
    await queue.add([task("more")])
    await queue.close()
    (blob,) = pieces.paths("/blobs/")
    pieces.delete(blob)
    pieces.write(pieces.paths("/queue/log/")[-1], b"torn")
    queue = pieces.place().task_queue()
    await queue.open()
    found = await findings(queue)
    assert all(one.harm for one in found.values())
    assert sorted(where.partition(" ")[0] for where in found) == ["blobs", "entries"]
    await queue.close()


async def test_a_missing_entry_is_named(pieces):
    queue = await a_queue(pieces)
    for number in range(3):
        await queue.add([task(f"more{number}")])
    pieces.delete(pieces.paths("/queue/log/")[1])
    found = await findings(queue)
    assert found["entries 2"].harm
    await queue.close()


async def test_entries_of_a_zombie_and_blobs_of_the_dead_are_deleted_if_asked(pieces, monkeypatch):
    queue = await a_queue(pieces)
    await queue.compact()
    await queue.add([task("again")])
    await queue.compact()
    first, *others = pieces.paths("/queue/checkpoints/")
    for checkpoint in [first, *others][:-1]:
        pieces.delete(checkpoint)
    left = pieces.paths("/queue/log/")
    if not left:  # a folder trims at once
        pieces.write("queue/log/0000000001.entry", b"late")
    found = await findings(queue)
    assert [(one.repaired, one.harm) for one in found.values()] == [(False, False)]
    assert [one.repaired for one in (await findings(queue, repair=True)).values()] == [True]
    assert await queue.inspect(False) == []
    assert [one.state for one in await queue.get(["small", "again"])] == [State.QUEUED] * 2
    (held, *_) = await queue.claim(["default"], 1, 60.0, "w")
    assert await queue.settle([Settle(id=held.id, token=held.token, to=State.SUCCEEDED)]) == [True]
    await queue.close()


async def test_torn_segments_lost_values_and_orphans_are_named(pieces):
    results = pieces.place().result_storage()
    await results.open()
    await results.put([result("kept"), result("big", payload=b"y" * BIG)])
    (segment,) = pieces.paths("/results/date=")
    folder = "results/" + segment.split("/results/")[1].split("/")[0]
    pieces.write(f"{folder}/compacted-{LONG_AGO}aaaaaaaaaaaa.parquet", b"unfinished")
    pieces.write(f"results/values/{LONG_AGO}aaaaaaaaaaaa", b"unnamed")
    found = await findings(results, repair=True)
    assert sorted(one.repaired for one in found.values()) == [True, True]
    assert await results.inspect(False) == []
    (value,) = pieces.paths("/results/values/")
    pieces.delete(value)
    (lost,) = await results.inspect(True)
    assert lost.harm and lost.where in value
    await results.close()

    pieces.write(segment, b"torn")
    results = pieces.place().result_storage()
    await results.open()
    (torn,) = await results.inspect(True)
    assert torn.harm and torn.where in segment and "torn" in torn.what
    assert pieces.paths("/results/date=") == [segment], "nothing is deleted that may be of use"
    await results.close()


def test_the_command_line_compacts_and_checks_deeply(tmp_path):
    here = str(tmp_path / "history")
    with OmniQ(here) as oq:
        oq.workers.start(1)
        oq.map(abs, range(20), name="b").results(timeout=60)
    shell = CliRunner()
    done = shell.invoke(cli, ["compact", "-b", here])
    assert done.exit_code == 0, done.output
    assert "result_storage" in done.output
    assert list(tmp_path.glob("history/results/*/compacted-*"))
    done = shell.invoke(cli, ["check", "--deep", "--json", "-b", here])
    assert (done.exit_code, json.loads(done.output)) == (0, [])
    for file in tmp_path.glob("history/results/*/compacted-*"):
        file.write_bytes(b"torn")
    done = shell.invoke(cli, ["check", "--deep", "--json", "-b", here])
    assert done.exit_code == 1
    assert json.loads(done.output)[0]["component"] == "result_storage"
    assert shell.invoke(cli, ["check", "--repair", "-b", here]).exit_code == 2


def test_a_database_needs_no_upkeep(tmp_path):
    done = CliRunner().invoke(cli, ["compact", "-b", f"sqlite:///{tmp_path}/t.db"])
    assert (done.exit_code, done.output) == (0, "nothing here needs compacting\n")


def test_events_are_compacted_by_themselves(tmp_path, monkeypatch):
    from omniq_nb.storage.objects import compaction

    monkeypatch.setattr(compaction, "FRESH_LIMIT", 20)
    monkeypatch.setattr(compaction, "LOOK_EVERY", 10)
    pieces = Bucket(tmp_path)

    async def main():
        events = pieces.place().event_storage()
        await events.open()
        for number in range(100):
            await events.append([event(f"e{number}")])
        await events.close()

    asyncio.run(main())
    assert pieces.paths("/compacted-")
