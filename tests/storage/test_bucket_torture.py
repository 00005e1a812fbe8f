"""Workers at a bucket with faults are killed again and again: nothing is lost, doubled or stuck.

``python -m tests.storage.test_bucket_torture [SERVER ...]`` does it at length, with 5,000 tasks and
for as long as any is left: on SeaweedFS and azurite, unless others are named.
"""

import asyncio
import itertools
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from omniq_nb import OmniQConfig
from omniq_nb.models.task import LIVE, Settle, State
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.testing import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.samples import task
from omniq_nb.testing.servers import Servers

SHARE = 0.02
WORKERS = 3
LEASE = 3.0


def recipe(backend, seed):
    options = msgspec.structs.replace(backend.options(), storage_options={"faults": (SHARE, seed)})
    return Recipe("omniq_nb.testing.clouds:FaultyPlace", (backend.backend_type, options))


async def drain(queue, worker):
    """Work until nothing is left; tell which settles were acknowledged, into a file at once."""
    with open(worker, "a", encoding="utf-8") as told:  # noqa: PTH123
        while True:
            tasks = await queue.claim(["default"], 8, LEASE, Path(worker).name)
            tasks = [one for one in tasks if one.state is State.RUNNING]
            await asyncio.sleep(0.02)
            outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in tasks]
            accepted = await queue.settle(outcomes)
            for one, ok in zip(tasks, accepted, strict=True):
                if ok:
                    told.write(f"{one.id}\n")
            told.flush()
            if not tasks:
                counts = await queue.counts()
                if not any(number for (_, state), number in counts.items() if state in LIVE):
                    return
                await asyncio.sleep(0.1)


def torture(server, folder, tasks, kills):
    """Kill a random worker every half a second, at most so often, while any task is left.

    Tells the tasks' states, the ids of acknowledged settles, and how often it has killed.
    """
    backend = server.backend()
    where = OmniQConfig(task_queue_backend=backend).resolve("task_queue")
    queue = StorageBackendFactory.create_place(where).task_queue()
    numbers = itertools.count(1)
    rng = random.Random(7)
    names = [f"t{number}" for number in range(tasks)]
    with asyncio.Runner() as runner, ExitStack() as stack:
        runner.run(queue.open())
        stack.callback(lambda: runner.run(queue.close()))
        assert all(runner.run(queue.add([task(name) for name in names])))

        def start():
            number = next(numbers)
            process = stack.enter_context(Process(recipe(backend, number), "task_queue"))
            process.start(drain, str(folder / f"w{number}"))
            return process

        def is_over():
            counts = runner.run(queue.counts())
            return not any(number for (_, state), number in counts.items() if state in LIVE)

        workers = [start() for _ in range(WORKERS)]
        killed = 0
        while killed < kills and not is_over():
            time.sleep(0.5)
            victim = rng.randrange(WORKERS)
            workers[victim].kill()
            workers[victim] = start()
            killed += 1
        for worker in workers:
            worker.answer()
        ended = runner.run(queue.get(names))
    told = [line for file in folder.iterdir() for line in file.read_text().split()]
    return [one.state for one in ended], told, killed


@pytest.mark.xdist_group("moto")
def test_workers_with_faults_are_killed_and_nothing_is_lost_or_doubled(servers, tmp_path):
    states, told, killed = torture(servers("moto"), tmp_path, tasks=250, kills=8)
    assert killed
    assert set(states) == {State.SUCCEEDED}
    assert len(told) == len(set(told)), "a settle was acknowledged twice"


def main(kinds):
    for kind in kinds:
        with (
            tempfile.TemporaryDirectory() as made,
            Servers(lambda kind: Path(made, kind)) as servers,
        ):
            told_to = Path(made, "told")
            told_to.mkdir()
            started = time.monotonic()
            states, told, killed = torture(servers(kind), told_to, 5_000, kills=10_000)
            lost = sum(state is not State.SUCCEEDED for state in states)
            doubled = len(told) - len(set(told))
            print(
                f"{kind}: {len(states)} tasks, {killed} workers killed, "
                f"{lost} lost or stuck, {doubled} doubled, {time.monotonic() - started:.0f} s"
            )


if __name__ == "__main__":
    main(sys.argv[1:] or ["seaweed", "azurite"])
