"""streaq on Redis: bulk enqueue."""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import report
from streaq import Worker

N = 10_000
worker = Worker(redis_url=sys.argv[2], queue_name=f"streaq{time.monotonic_ns()}")


@worker.task
async def nothing(i: int) -> int:
    return i


async def main() -> None:
    async with worker:
        start = time.perf_counter()
        await worker.enqueue_many([nothing.enqueue(i) for i in range(N)])
        report(bulk=N / (time.perf_counter() - start))


asyncio.run(main())
