"""Workers at a bucket with faults are killed again and again: nothing is lost, doubled or stuck.

``python -m tests.storage.test_bucket_torture [TASKS]`` does it at length.
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

from omniq_nb.models.task import LIVE, Settle, State
from omniq_nb.storage.buckets.place import S3Place
from omniq_nb.testing import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.samples import task
from omniq_nb.testing.servers import Servers

SHARE = 0.02
WORKERS = 3
LEASE = 3.0


def recipe(options, seed):
    faults = {"faults": (SHARE, seed)}
    options = msgspec.structs.replace(options, storage_options=faults)
    return Recipe("omniq_nb.testing.clouds:FaultyS3Place", (None, options))


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
    """Kill a random worker every half a second, so many times; tell what came of the tasks."""
    options = server.backend().options()
    numbers = itertools.count(1)
    rng = random.Random(7)

    async def with_queue(do):
        queue = S3Place(None, options).task_queue()
        await queue.open()
        try:
            return await do(queue)
        finally:
            await queue.close()

    names = [f"t{number}" for number in range(tasks)]
    added = asyncio.run(with_queue(lambda q: q.add([task(n) for n in names])))
    assert all(added)
    with ExitStack() as stack:

        def start():
            number = next(numbers)
            process = stack.enter_context(Process(recipe(options, number), "task_queue"))
            process.start(drain, str(folder / f"w{number}"))
            return process

        workers = [start() for _ in range(WORKERS)]
        for _ in range(kills):
            time.sleep(0.5)
            victim = rng.randrange(WORKERS)
            workers[victim].kill()
            workers[victim] = start()
        for worker in workers:
            worker.answer()
    ended = asyncio.run(with_queue(lambda q: q.get(names)))
    told = [line for file in folder.iterdir() for line in file.read_text().split()]
    return [one.state for one in ended], told


@pytest.mark.xdist_group("moto")
def test_workers_with_faults_are_killed_and_nothing_is_lost_or_doubled(servers, tmp_path):
    states, told = torture(servers("moto"), tmp_path, tasks=250, kills=8)
    assert set(states) == {State.SUCCEEDED}
    assert len(told) == len(set(told)), "a settle was acknowledged twice"


if __name__ == "__main__":
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as made, Servers(lambda kind: Path(made, kind)) as running:
        told_to = Path(made, "told")
        told_to.mkdir()
        states, told = torture(running("seaweed"), told_to, tasks, kills=60)
        lost = sum(state is not State.SUCCEEDED for state in states)
        print(f"{tasks} tasks, {lost} lost or stuck, {len(told) - len(set(told))} doubled")
