"""arq on Redis: drain by one worker. It stores results, as we do."""

import asyncio
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from arq import Worker, create_pool
from arq.connections import RedisSettings
from measure import report

logging.disable(logging.CRITICAL)
settings = RedisSettings.from_dsn(sys.argv[2])
N = 5_000


async def nothing(context: dict[str, object], i: int) -> int:
    return i


async def main() -> None:
    queue = f"arq{time.monotonic_ns()}"
    pool = await create_pool(settings, default_queue_name=queue)
    for i in range(N):
        await pool.enqueue_job("nothing", i)
    worker = Worker(
        [nothing],
        queue_name=queue,
        redis_settings=settings,
        burst=True,
        max_jobs=100,
        poll_delay=0.01,
        handle_signals=False,
    )
    start = time.perf_counter()
    await worker.main()
    rate = N / (time.perf_counter() - start)
    assert worker.jobs_complete == N
    await worker.close()
    report(drain=rate)


asyncio.run(main())
