"""taskiq on Redis: idle latency, receiver and producer on one loop."""

import asyncio
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import percentiles, report
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker

logging.disable(logging.CRITICAL)
broker = ListQueueBroker(sys.argv[2], queue_name=f"taskiq{time.monotonic_ns()}")
started: "asyncio.Queue[float]" = asyncio.Queue()


@broker.task
async def stamp() -> None:
    started.put_nowait(time.perf_counter())


async def main() -> None:
    await broker.startup()
    receiving = asyncio.create_task(run_receiver_task(broker))
    await asyncio.sleep(1)
    taken = []
    for _ in range(300):
        await asyncio.sleep(0.005)
        submitted = time.perf_counter()
        await stamp.kiq()
        taken.append(await started.get() - submitted)
    receiving.cancel()
    await asyncio.wait([receiving])
    await broker.shutdown()
    report(latency=percentiles(taken))


asyncio.run(main())
