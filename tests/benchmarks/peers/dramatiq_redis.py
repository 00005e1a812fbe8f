"""dramatiq on Redis: single enqueue, and drain with prefetch. It stores no results."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["dramatiq_queue_prefetch"] = "200"  # noqa: SIM112
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from measure import report, seconds

logging.disable(logging.CRITICAL)
url = sys.argv[2]
N = 20_000

broker = RedisBroker(url=url, namespace=f"dramatiq{time.monotonic_ns()}")
dramatiq.set_broker(broker)
left = threading.Semaphore(0)


@dramatiq.actor
def nothing(i: int) -> None:
    left.release()


enqueue = N / seconds(lambda: [nothing.send(i) for i in range(N)])
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)


def work() -> None:
    worker.start()
    for _ in range(N):
        left.acquire()
    broker.join("default")


rate = N / seconds(work)
worker.stop()
report(enqueue=enqueue, drain=rate)
