"""pgqueuer on PostgreSQL: single and bulk enqueue, drain, idle latency. It stores no results."""

import asyncio
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import asyncpg
from measure import percentiles, report
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

url = sys.argv[2]
N = 20_000
BATCH = 256


async def rates() -> dict[str, float]:
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    start = time.perf_counter()
    for number in range(1_000):
        await queries.enqueue("nothing", str(number).encode())
    one = 1_000 / (time.perf_counter() - start)
    start = time.perf_counter()
    await queries.enqueue(["nothing"] * N, [b"%d" % i for i in range(N)], [0] * N)
    bulk = N / (time.perf_counter() - start)

    worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @worker.entrypoint("nothing")
    async def nothing(job: Job) -> None:
        pass

    start = time.perf_counter()
    await worker.qm.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    drain = (N + 1_000) / (time.perf_counter() - start)
    assert not await queries.queue_size(), "not empty"
    return {"enqueue": one, "bulk": bulk, "drain": drain}


async def latency() -> dict[str, float]:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    started: asyncio.Queue[float] = asyncio.Queue()

    @worker.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        started.put_nowait(time.perf_counter())

    running = asyncio.create_task(worker.qm.run(dequeue_timeout=timedelta(seconds=30)))
    await asyncio.sleep(1)
    taken = []
    for _ in range(300):
        await asyncio.sleep(0.005)
        submitted = time.perf_counter()
        await queries.enqueue("stamp", None)
        taken.append(await started.get() - submitted)
    worker.shutdown.set()
    await running
    return percentiles(taken)


async def main() -> None:
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    try:
        report(**await rates(), latency=await latency())
    finally:
        await Queries(AsyncpgDriver(connection)).uninstall()


asyncio.run(main())
