"""What is special about the journal: races for a number, crashes, trimming, blobs, doubt."""

import asyncio
import errno
import itertools
import os
import re
import resource
import signal
import stat
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from omniq_nb.errors import StoreError, StoreUnavailable, StoreVersionError
from omniq_nb.machine import Machine
from omniq_nb.models.task import Settle, State, Task
from omniq_nb.storage import local
from omniq_nb.storage.base import TaskQueue
from omniq_nb.storage.journal import file_log, replica
from omniq_nb.storage.journal.file_log import FileLog
from omniq_nb.storage.journal.log import Behind, Entry, StoredLog, seal, unseal
from omniq_nb.storage.journal.memory_log import MemoryLog
from omniq_nb.storage.journal.queue import JournalTaskQueue
from omniq_nb.storage.journal.replica import finish
from omniq_nb.storage.objects.bucket import LocalBucket
from omniq_nb.storage.objects.results import ObjectResultStore
from omniq_nb.testing.places import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.queue import TaskQueueSuite

LONG = 600.0
BIG_CALL = bytes(range(256)) * 32


class Journals(NamedTuple):
    """A folder with a queue in it, for child processes too; results lie beside the queue."""

    path: str
    fsync: bool = False

    def task_queue(self) -> JournalTaskQueue:
        return JournalTaskQueue(FileLog(self.path, self.fsync))

    def result_storage(self) -> ObjectResultStore:
        return ObjectResultStore(LocalBucket(Path(f"{self.path}-results"), fsync=self.fsync))


class Driven:
    """A queue whose methods are called without an event loop."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._queue, name)
        return lambda *arguments, **named: finish(method(*arguments, **named))


def opened(path: Path, fsync: bool = False) -> Driven:
    queue = Driven(Journals(str(path), fsync).task_queue())
    queue.open()
    return queue


def task(id: str, **fields: Any) -> Task:
    return Task(**{"id": id, "name": "demo.work", "call": b"call", **fields})


def tasks(prefix: str, count: int, **fields: Any) -> list[Task]:
    return [task(f"{prefix}{number}", **fields) for number in range(count)]


def claim(queue: Any, limit: int = 100, lease: float = LONG) -> list[Task]:
    claimed: list[Task] = queue.claim(["default"], limit, lease, "worker")
    return claimed


def settle(queue: Any, claimed: Iterable[Task], to: State = State.SUCCEEDED) -> list[bool]:
    settled: list[bool] = queue.settle([Settle(id=t.id, token=t.token, to=to) for t in claimed])
    return settled


def files(path: Path, folder: str) -> list[str]:
    return sorted(file.name for file in (path / folder).iterdir())


def run_one_by_one(queue: Any, names: Iterable[str]) -> None:
    for name in names:
        queue.add([task(name)])
        assert settle(queue, claim(queue)) == [True]


@pytest.fixture
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "CHECKPOINT_ENTRIES", 3)
    monkeypatch.setattr(replica, "CHECKPOINT_BYTES", 3_000)


# -------------------------------------------------------------------- the suite, differently


class TestQueueThatCheckpointsAllTheTime(TaskQueueSuite):
    """The whole contract, with a checkpoint every few entries and trimming behind it."""

    @pytest.fixture
    def new_recipe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Recipe]:
        monkeypatch.setattr(replica, "CHECKPOINT_ENTRIES", 3)
        monkeypatch.setattr(replica, "CHECKPOINT_BYTES", 3_000)
        numbers = itertools.count()
        constructor = f"{Journals.__module__}:{Journals.__name__}"
        return lambda: Recipe(constructor, (str(tmp_path / str(next(numbers))),))


# -------------------------------------------------------------------- on the disk


def test_no_name_on_the_disk_comes_from_a_user(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    odd = ["../../odd", "odd\n", "o'dd"]
    queue.add([task(name, name=name, queue=name, call=BIG_CALL) for name in odd])
    known = re.compile(r"(\d{10}\.(entry|checkpoint)|[0-9a-f]{32}|log|checkpoints|blobs|drafts)")
    assert all(known.fullmatch(path.name) for path in tmp_path.rglob("*"))


def test_a_bulk_add_is_one_entry(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    assert queue.add(tasks("t", 10_000, call=BIG_CALL)) == [True] * 10_000
    assert (len(files(tmp_path, "log")), len(files(tmp_path, "blobs"))) == (1, 1)


def test_an_idle_worker_writes_nothing(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.add([task("later", available_at=time.time() + LONG)])
    for _ in range(10):
        assert claim(queue) == []
    assert len(files(tmp_path, "log")) == 1


async def test_concurrent_callers_share_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Journals(str(tmp_path), fsync=True).task_queue()
    await queue.open()
    monkeypatch.setattr(os, "fsync", lambda descriptor: time.sleep(0.02))
    added = await asyncio.gather(*(queue.add([task(str(number))]) for number in range(40)))
    assert added == [[True]] * 40
    assert len(files(tmp_path, "log")) < 20


async def test_a_worker_begins_while_an_entry_is_still_being_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Journals(str(tmp_path), fsync=True).task_queue()
    await queue.open()
    syncing, may_end = threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        syncing.set()
        assert may_end.wait(60)

    monkeypatch.setattr(os, "fsync", fsync)
    adding = asyncio.create_task(queue.add([task("a")]))
    await asyncio.to_thread(syncing.wait, 60)
    assert [each.id for each in await queue.claim(["default"], 1, LONG, "w")] == ["a"]
    assert not adding.done()  # it is not yet safe, and nobody is told so
    may_end.set()
    assert await adding == [True]


async def test_whoever_adds_is_told_of_a_disk_that_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Journals(str(tmp_path), fsync=True).task_queue()
    await queue.open()

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match="Input/output error"):
            await queue.add([task("a")])
    assert await queue.add([task("b")]) == [True]


def test_what_one_process_synced_another_does_not_sync_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    monkeypatch.setattr(file_log, "_sync", lambda path, flags: synced.append(Path(path).name))
    writer, other = opened(tmp_path, fsync=True), opened(tmp_path, fsync=True)
    for number in range(20):
        writer.add([task(str(number))])
    claim(writer)  # tells that all before it are safe, and is not synced itself
    synced.clear()
    other.add([task("one more")])
    assert synced == ["0000000021.entry", "0000000022.entry", "log"]


def test_the_disk_does_not_fill_up_while_tasks_come_and_go(
    tmp_path: Path, frequent_checkpoints: None
) -> None:
    queue = opened(tmp_path)
    for life in range(40):
        run_one_by_one(queue, [f"{life}-{number}" for number in range(5)])
        queue.purge(time.time() + 1)
    assert len(files(tmp_path, "log")) < 40
    assert len(files(tmp_path, "checkpoints")) == 2
    assert files(tmp_path, "drafts") == []
    reopened = opened(tmp_path)
    assert reopened.counts() == {}
    assert reopened.add([task("new")]) == [True]


def test_tasks_come_back_from_a_checkpoint_as_they_were(
    tmp_path: Path, frequent_checkpoints: None
) -> None:
    queue = opened(tmp_path)
    queue.add([task("a"), task("b", depends_on=("a",)), task("c", priority=1), task("d")])
    held, *_ = claim(queue, limit=1)
    run_one_by_one(queue, [])
    for number in range(20):
        queue.add([task(f"filler-{number}", queue="other")])
    reopened = opened(tmp_path)
    assert files(tmp_path, "checkpoints")[-1] > f"{0:010}.checkpoint"
    assert reopened.extend([held.claim], LONG) == [True]
    first, second = claim(reopened)
    assert (held.id, first.id, second.id, first.call) == ("c", "a", "d", b"call")
    settle(reopened, [first])
    assert [each.id for each in claim(reopened)] == ["b"]


# -------------------------------------------------------------------- damage


@pytest.mark.parametrize("rest", [b"", b"\0" * 300, b"foreign bytes", None], ids=str)
def test_a_torn_end_of_the_log_is_skipped(tmp_path: Path, rest: bytes | None) -> None:
    queue = opened(tmp_path)
    queue.add([task("a")])
    queue.add([task("b")])
    torn = tmp_path / "log" / files(tmp_path, "log")[-1]
    torn.write_bytes(torn.read_bytes()[:-1] if rest is None else rest)
    reopened = opened(tmp_path)
    assert reopened.add([task("a"), task("b"), task("c")]) == [False, True, True]
    assert [each.id for each in claim(opened(tmp_path))] == ["a", "b", "c"]


def test_a_torn_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, frequent_checkpoints: None
) -> None:
    run_one_by_one(opened(tmp_path), [str(number) for number in range(20)])
    older, newest = files(tmp_path, "checkpoints")
    (tmp_path / "checkpoints" / newest).write_bytes(b"")
    assert opened(tmp_path).counts() == {("default", State.SUCCEEDED): 20}
    (tmp_path / "checkpoints" / older).write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        opened(tmp_path)


def test_what_a_newer_release_wrote_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).add([task("a")])
    entry = tmp_path / "log" / "0000000001.entry"
    mine = unseal(entry.read_bytes())
    assert mine is not None
    entry.write_bytes(seal(msgspec.structs.replace(mine, version=mine.version + 1)))
    with pytest.raises(StoreVersionError, match="Upgrade"):
        opened(tmp_path)
    form = bytearray(seal(mine))
    form[4] += 1
    entry.write_bytes(form)
    with pytest.raises(StoreVersionError, match="Upgrade"):
        opened(tmp_path)


def test_a_folder_that_cannot_hold_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot hold a log"):
        opened(tmp_path / "file")


def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreUnavailable, match="hard links"):
        opened(tmp_path)


async def limit_file_size(queue: TaskQueue, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_the_add_and_harms_nothing(tmp_path: Path) -> None:
    with Process(Recipe(f"{__name__}:Journals", (str(tmp_path),)), "task_queue") as child:
        child.run("add", tasks("before", 3))
        child.run(limit_file_size, 20_000)
        for too_much in (tasks("x", 1_000), tasks("y", 10, call=BIG_CALL)):
            with pytest.raises(AssertionError, match="StoreError"):
                child.run("add", too_much)
        assert child.run("add", tasks("after", 3)) == [True] * 3
        assert len(child.run("claim", ["default"], 9, LONG, "w")) == 6
    assert files(tmp_path, "drafts") == files(tmp_path, "blobs") == []
    assert sum(opened(tmp_path).counts().values()) == 6


def test_a_checkpoint_that_fails_does_not_fail_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frequent_checkpoints: None
) -> None:
    async def save(self: FileLog, number: int, checkpoint: Entry) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileLog, "save", save)
    run_one_by_one(opened(tmp_path), [str(number) for number in range(20)])
    monkeypatch.undo()
    assert opened(tmp_path).counts() == {("default", State.SUCCEEDED): 20}


# -------------------------------------------------------------------- crashes


async def work_and_checkpoint(queue: TaskQueue, life: int) -> None:
    """Add, claim and settle for ever; say on a file of its own what was acknowledged."""
    replica.CHECKPOINT_ENTRIES = 3  # this is a child process
    path = Path(os.environ["SAID"])
    with path.open("a", buffering=1) as said:
        for number in itertools.count():
            name = f"{life}-{number}"
            await queue.add([task(name, call=BIG_CALL if number % 3 == 0 else b"small")])
            said.write(f"added {name}\n")
            for each in await queue.claim(["default"], 2, LONG, "w"):
                assert each.call in (BIG_CALL, b"small")
                if await queue.settle([Settle(id=each.id, token=each.token, to=State.SUCCEEDED)]):
                    said.write(f"settled {each.id}\n")


@pytest.mark.parametrize("fsync", [False, True])
def test_a_kill_at_any_moment_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    place = tmp_path / "place"
    recipe = Recipe(f"{__name__}:Journals", (str(place), fsync))
    with Process(recipe, "task_queue") as steady:
        steady.start(work_and_checkpoint, 99)
        for life in range(4):
            with Process(recipe, "task_queue") as child:
                child.start(work_and_checkpoint, life)
                said = ""
                while said.count(f"settled {life}-") < 3 + life:
                    time.sleep(0.005)
                    path = tmp_path / "said"
                    said = path.read_text() if path.exists() else ""
                child.kill()
            queue = opened(place)
            words = [line.split() for line in said.splitlines()]
            known = {name for _, name in words}
            settled = {name for verb, name in words if verb == "settled"}
            found = {each.id: each for each in queue.get(sorted(known)) if each is not None}
            assert found.keys() == known
            assert {found[name].state for name in settled} == {State.SUCCEEDED}


def test_a_process_that_slept_through_trimming_wakes_up_to_the_truth(tmp_path: Path) -> None:
    recipe = Recipe(f"{__name__}:Journals", (str(tmp_path),))
    with Process(recipe, "task_queue") as reader, Process(recipe, "task_queue") as writer:
        reader.run("add", [task("before-1")])
        writer.run("add", [task("before-2")])
        reader.stop()
        writer.stop()
        queue = opened(tmp_path)
        assert settle(queue, claim(queue)) == [True, True]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replica, "CHECKPOINT_ENTRIES", 3)
            run_one_by_one(queue, [str(number) for number in range(30)])
        assert files(tmp_path, "log")[0] > "0000000010"
        reader.resume()
        writer.resume()
        # One reads first, the other writes at once where a deleted entry was.
        assert sum(reader.run("counts").values()) == 32
        assert writer.run("add", [task("3"), task("after")]) == [False, True]
        assert sum(reader.run("counts").values()) == 33
        assert sum(queue.counts().values()) == 33
        assert sum(opened(tmp_path).counts().values()) == 33


def test_an_entry_written_where_one_was_trimmed_never_counts(
    tmp_path: Path, frequent_checkpoints: None
) -> None:
    opened(tmp_path)
    sleepers = [FileLog(tmp_path) for _ in range(2)]
    for log in sleepers:
        assert finish(log.load()) == (0, None)
    run_one_by_one(opened(tmp_path), [str(number) for number in range(30)])
    stale = Entry(b"s" * 16, 1, True, b"\x90")
    with pytest.raises(Behind):
        finish(sleepers[0].append(1, stale))
    assert not (tmp_path / "log" / "0000000001.entry").exists()
    # A zombie may even die before it takes its entry back: nobody mistakes that for the log.
    (tmp_path / "log" / "0000000001.entry").write_bytes(seal(stale))
    assert finish(sleepers[1].size(2)) is not None
    with pytest.raises(Behind):
        finish(sleepers[1].read(1))
    with pytest.raises(Behind):
        finish(sleepers[1].append(2, stale))


# -------------------------------------------------------------------- interrupts and forks


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_while_publishing_leaves_the_queue_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    queue = opened(tmp_path)
    link, interrupts = os.link, [True]

    def interrupted(source: str, target: str) -> None:
        if moment == "after":
            link(source, target)
        if interrupts:
            interrupts.pop()
            raise KeyboardInterrupt
        if moment == "before":
            link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.add([task("a")])
    monkeypatch.undo()
    assert queue.add([task("b")]) == [True]
    assert [each.id for each in claim(queue)] == ["a", "b"]
    assert opened(tmp_path).counts() == {("default", State.RUNNING): 2}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C works: in the background of a shell it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stored", [True, False])
def test_ctrl_c_waits_until_the_state_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: None, stored: bool
) -> None:
    queue = Driven(JournalTaskQueue(FileLog(tmp_path) if stored else MemoryLog()))
    queue.open()
    add = Machine.add

    def interrupted(self: Machine, command: Any) -> list[bool]:
        signal.raise_signal(signal.SIGINT)
        return add(self, command)

    monkeypatch.setattr(Machine, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.add([task("a")])
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [each.id for each in claim(queue)] == ["a"]


def test_an_error_while_folding_is_mended_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(tmp_path)
    queue.add([task("a")])

    def broken(self: Machine, command: Any) -> list[Task]:
        self.tasks.clear()
        raise RuntimeError("half an entry")

    monkeypatch.setattr(Machine, "claim", broken)
    with pytest.raises(RuntimeError, match="half an entry"):
        claim(queue)
    monkeypatch.undo()
    # The claim itself is in the log: its lease has to run out, or the task be cancelled.
    assert queue.counts() == {("default", State.RUNNING): 1}


def test_a_forked_child_and_its_parent_both_go_on(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.add([task("a")])
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if queue.add(tasks("child-", 20)) == [True] * 20 else 2
        finally:
            os._exit(status)
    queue.add(tasks("parent-", 20))
    assert os.waitpid(child, 0)[1] == 0
    assert sum(queue.counts().values()) == 41


def test_threads_share_one_queue(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.add(tasks("t", 300))
    won: list[str] = []

    def work() -> None:
        while claimed := claim(queue, limit=3):
            settled = settle(queue, claimed)
            won.extend(t.id for t, ok in zip(claimed, settled, strict=True) if ok)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(set(won)) == 300


# -------------------------------------------------------------------- blobs


def test_a_big_call_is_kept_beside_the_log_until_its_task_succeeded(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.add([task("big", call=BIG_CALL), task("small"), task("bigger", call=BIG_CALL * 2)])
    assert len(files(tmp_path, "blobs")) == 1
    claimed = claim(queue)
    assert [each.call for each in claimed] == [BIG_CALL, b"call", BIG_CALL * 2]
    settle(queue, claimed[:2])
    assert len(files(tmp_path, "blobs")) == 1
    settle(queue, claimed[2:], State.FAILED)
    assert len(files(tmp_path, "blobs")) == 1, "it may be requeued"
    queue.transition(["bigger"], State.QUEUED)
    (again,) = claim(opened(tmp_path))
    assert again.call == BIG_CALL * 2
    settle(queue, [again])
    assert files(tmp_path, "blobs") == []


@pytest.mark.parametrize("end", ["purge", "revive", "nothing was added"])
def test_a_blob_goes_with_the_last_task_that_needs_it(tmp_path: Path, end: str) -> None:
    queue = opened(tmp_path)
    queue.add([task("a", call=BIG_CALL)])
    if end == "nothing was added":
        queue.add([task("a", call=BIG_CALL)])
        assert len(files(tmp_path, "blobs")) == 1
        return
    queue.transition(["a"], State.CANCELLED)
    if end == "purge":
        assert queue.purge(time.time() + 1) == 1
    else:
        assert queue.add([task("a")], revive=True) == [True]
    assert files(tmp_path, "blobs") == []


def test_a_call_that_looks_like_a_reference_comes_back_as_it_was(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    call = b"\x00omniq reference\x00and more"
    queue.add([task("a", call=call)])
    assert [each.call for each in claim(opened(tmp_path))] == [call]


def test_blobs_and_drafts_of_dead_writers_are_swept(
    tmp_path: Path, frequent_checkpoints: None
) -> None:
    queue = opened(tmp_path)
    queue.add([task("live", queue="other", call=BIG_CALL)])
    (live,) = files(tmp_path, "blobs")
    for folder, name in (("blobs", "abandoned"), ("drafts", "abandoned"), ("blobs", "young")):
        (tmp_path / folder / name).write_bytes(b"")
    long_ago = time.time() - local.ABANDONED - 60
    for old in ("blobs/abandoned", "drafts/abandoned", f"blobs/{live}"):
        os.utime(tmp_path / old, (long_ago, long_ago))
    run_one_by_one(queue, [str(number) for number in range(10)])
    opened(tmp_path)
    assert files(tmp_path, "blobs") == sorted([live, "young"])
    assert files(tmp_path, "drafts") == []


# -------------------------------------------------------------------- a log far away


class RemoteLog(StoredLog):
    """A log that several replicas share, that suspends, and that fails as networks do."""

    immediate = False
    slow = True
    poll = (0.002, 0.01)

    def __init__(self, entries: dict[int, bytes]) -> None:
        self.entries = entries
        self.lies: list[Callable[[], bool]] = []

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def size(self, number: int) -> int | None:
        return len(self.entries[number]) if number in self.entries else None

    async def read(self, number: int) -> Sequence[Entry]:
        await asyncio.sleep(0)
        found = []
        while (data := self.entries.get(number + len(found))) is not None:
            entry = unseal(data)
            assert entry is not None
            found.append(entry)
        return found

    async def append(self, number: int, entry: Entry) -> bool:
        await asyncio.sleep(0.001)
        won = self.entries.setdefault(number, seal(entry)) == seal(entry)
        await asyncio.sleep(0.001)
        return self.lies.pop()() if self.lies else won

    async def confirm(self) -> None: ...

    async def load(self) -> tuple[int, Entry | None]:
        return 0, None

    async def newest_checkpoint(self) -> int:
        return 0

    async def save(self, number: int, checkpoint: Entry) -> None: ...
    async def put_blob(self, name: str, parts: Sequence[bytes]) -> None: ...
    async def get_blob(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None: ...
    async def delete_blobs(self, names: Iterable[str]) -> None: ...
    async def sweep_blobs(self, keep: Container[str]) -> None: ...


async def test_replicas_of_a_remote_log_agree_on_who_won() -> None:
    entries: dict[int, bytes] = {}
    queues = [JournalTaskQueue(RemoteLog(entries)) for _ in range(4)]
    for queue in queues:
        await queue.open()
    added = await asyncio.gather(
        *(q.add([task("same"), task(str(i))]) for i, q in enumerate(queues))
    )
    assert sorted(mine for mine, _ in added) == [False, False, False, True]
    claimed = await asyncio.gather(*(q.claim(["default"], 2, LONG, "w") for q in queues))
    assert len({each.id for some in claimed for each in some}) == 5
    assert len({str(await q.counts()) for q in queues}) == 1


async def test_a_write_that_is_answered_with_exists_is_known_again_as_ones_own() -> None:
    log = RemoteLog({})
    queue = JournalTaskQueue(log)
    await queue.open()
    log.lies = [lambda: False]
    assert await queue.add([task("a")]) == [True]
    assert len(log.entries) == 1


async def test_a_write_that_failed_and_yet_happened_is_folded() -> None:
    def fail() -> bool:
        raise TimeoutError("no answer")

    log = RemoteLog({})
    queue = JournalTaskQueue(log)
    await queue.open()
    log.lies = [fail]
    with pytest.raises(StoreError, match="no answer"):
        await queue.add([task("a")])
    assert await queue.add([task("a"), task("b")]) == [False, True]


async def test_a_cancelled_caller_leaves_the_others_their_answers() -> None:
    log = RemoteLog({})
    queue = JournalTaskQueue(log)
    await queue.open()
    first = asyncio.create_task(queue.add([task("first")]))
    await asyncio.sleep(0)
    others = [asyncio.create_task(queue.add([task(str(number))])) for number in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [[True]] * 5
    assert len(log.entries) <= 3, "the others shared an entry"


# -------------------------------------------------------------------- waiting


async def test_waiting_hears_another_process_through_the_file(tmp_path: Path) -> None:
    with Process(Recipe(f"{__name__}:Journals", (str(tmp_path),)), "task_queue") as other:
        queue = Journals(str(tmp_path)).task_queue()
        await queue.open()
        waiting = asyncio.create_task(queue.wait(["default"], 60.0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.to_thread(other.run, "add", [task("a")])
        await asyncio.wait_for(waiting, 20.0)
        assert [each.id for each in await queue.claim(["default"], 9, LONG, "w")] == ["a"]


def test_waiting_works_without_an_event_loop(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.wait(["default"], 0.01)
    adding = threading.Timer(0.05, lambda: queue.add([task("a")]))
    adding.start()
    queue.wait(["default"], 60.0)
    adding.join()
    assert [each.id for each in claim(queue)] == ["a"]
