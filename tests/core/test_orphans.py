"""Tasks whose worker died need not wait until their leases are over."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from omniq_nb import OmniQ
from omniq_nb.core.orphans import Orphans
from omniq_nb.liveness import lives_here, process_start, this_process
from omniq_nb.models.task import Task, WorkerInfo
from omniq_nb.storage.base import TaskQueue
from omniq_nb.storage.memory import MemoryPlace
from omniq_nb.testing.suite import opened
from tests.core.clients import url_of
from tests.waiting import until

LEASE = 3600.0

KERNEL = """
import time
from omniq_nb import OmniQ
from omniq_nb.core import worker
from tests.core import work
worker.LEASE = {lease}
oq = OmniQ({url!r})
oq.workers.start(1)
oq.map(work.touch_and_sleep, [{path!r}], name="left behind")
time.sleep(600)
"""


@pytest.mark.parametrize("backend", ["sqlite", "file"])
def test_what_a_killed_kernel_ran_is_run_again_soon(tmp_path, backend):
    url, path = url_of(backend, tmp_path), tmp_path / "running"
    code = KERNEL.format(url=url, path=str(path), lease=LEASE)
    kernel = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: path.exists() and path.read_text(), "the task runs")
    kernel.kill()
    kernel.wait()
    path.unlink()
    with OmniQ(url) as oq:
        oq.workers.start(1)
        until(path.exists, "it runs again")
        path.unlink()
        assert oq.batch("left behind").results(timeout=60) == [None]


# ---------------------------------------------------------------- who sees to whom


@pytest_asyncio.fixture
async def queue() -> AsyncIterator[TaskQueue]:
    """A queue in which "theirs" is held by the worker "m"."""
    async with opened(MemoryPlace().task_queue()) as queue:
        await queue.add([Task(id="theirs", name="f", call=b"")])
        assert await queue.claim(["default"], 1, LEASE, "m")
        yield queue


@pytest.fixture
def gone() -> str:
    """A process that was here and is here no more."""
    process = subprocess.Popen(["sleep", "600"])
    space = this_process().removesuffix(str(process_start(os.getpid())))
    words = f"{space}{process_start(process.pid)}"
    process.kill()
    process.wait()
    return words


def worker(id: str, process: str, age: float = 0.0, state: str = "running") -> WorkerInfo:
    pid = os.getpid() if process == this_process() else 2**22 - 1
    heartbeat_at = time.time() - age
    return WorkerInfo(id=id, process=process, pid=pid, heartbeat_at=heartbeat_at, state=state)


async def is_due(queue: TaskQueue) -> bool:
    return bool(await queue.claim(["default"], 1, LEASE, "z"))


def test_a_process_is_known_to_live_or_to_be_gone_or_not_known(gone):
    assert lives_here(worker("m", this_process())) is True
    assert lives_here(worker("m", gone)) is False
    assert lives_here(worker("m", f"another machine, {gone}")) is None
    assert lives_here(worker("m", "")) is None, "a worker of an earlier release"


async def test_what_the_dead_held_is_due_once(queue, gone):
    orphans, me, dead = Orphans(queue, LEASE), worker("z", this_process()), worker("m", gone)
    await orphans.look(me, [dead, me])
    assert await is_due(queue)
    await orphans.look(me, [dead, me])
    assert not await is_due(queue)


@pytest.mark.parametrize(
    "change",
    [
        {"process": this_process()},
        {"process": "another machine, since then"},
        {"process": ""},
        {"state": "stopped"},
        {"age": 2 * LEASE},
    ],
    ids=["lives", "is elsewhere", "of an earlier release", "stopped", "died long ago"],
)
async def test_leases_of_others_are_let_alone(queue, gone, change):
    me, other = worker("z", this_process()), worker("m", **{"process": gone} | change)
    await Orphans(queue, LEASE).look(me, [me, other])
    assert not await is_due(queue)


async def test_one_of_the_living_does_it_for_all(queue, gone):
    first, me = worker("a", this_process()), worker("z", this_process())
    workers = [me, worker("m", gone), first]
    await Orphans(queue, LEASE).look(me, workers)
    assert not await is_due(queue)
    await Orphans(queue, LEASE).look(first, workers)
    assert await is_due(queue)
