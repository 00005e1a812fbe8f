"""taskiq-nats with a pull consumer: enqueue, drain, idle latency. It stores no results."""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import percentiles, report
from taskiq.receiver import Receiver
from taskiq_nats import PullBasedJetStreamBroker

url = sys.argv[2]
N = 20_000
AT_ONCE = 200


def make(name: str, batch: int) -> PullBasedJetStreamBroker:
    return PullBasedJetStreamBroker(
        [url],
        subject=name,
        stream_name=name,
        durable=name,
        pull_consume_batch=batch,
        pull_consume_timeout=0.2,
    )


async def rates() -> dict[str, float]:
    broker = make("rates", AT_ONCE)

    @broker.task
    async def nothing(number: int) -> int:
        return number

    await broker.startup()
    start = time.perf_counter()
    for number in range(1_000):
        await nothing.kiq(number)
    one = 1_000 / (time.perf_counter() - start)
    start = time.perf_counter()
    for first in range(0, N, 1_000):
        await asyncio.gather(*[nothing.kiq(first + i) for i in range(1_000)])
    bulk = N / (time.perf_counter() - start)

    finish = asyncio.Event()
    receiver = Receiver(broker, max_async_tasks=AT_ONCE, max_prefetch=AT_ONCE, run_startup=False)
    start = time.perf_counter()
    listening = asyncio.create_task(receiver.listen(finish))
    while True:
        await asyncio.sleep(0.01)
        state = await broker.js.consumer_info("rates", "rates")
        if not state.num_pending and not state.num_ack_pending:
            break
    drain = (N + 1_000) / (time.perf_counter() - start)
    finish.set()
    await listening
    await broker.js.delete_stream("rates")
    await broker.shutdown()
    return {"enqueue": one, "bulk": bulk, "drain": drain}


async def latency() -> dict[str, float]:
    broker = make("latency", 1)
    started: asyncio.Queue[float] = asyncio.Queue()

    @broker.task
    async def stamp() -> None:
        started.put_nowait(time.perf_counter())

    await broker.startup()
    finish = asyncio.Event()
    receiver = Receiver(broker, run_startup=False)
    listening = asyncio.create_task(receiver.listen(finish))
    await asyncio.sleep(1)
    taken = []
    for _ in range(300):
        await asyncio.sleep(0.005)
        submitted = time.perf_counter()
        await stamp.kiq()
        taken.append(await started.get() - submitted)
    finish.set()
    await listening
    await broker.js.delete_stream("latency")
    await broker.shutdown()
    return percentiles(taken)


async def main() -> None:
    report(**await rates(), latency=await latency())


asyncio.run(main())
