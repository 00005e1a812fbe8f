"""rq on Redis: bulk enqueue."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import report, seconds
from redis import Redis
from rq import Queue

N = 10_000
queue = Queue(f"rq{time.monotonic_ns()}", connection=Redis.from_url(sys.argv[2]))


def work() -> None:
    queue.enqueue_many([Queue.prepare_data("builtins.abs", (i,)) for i in range(N)])


report(bulk=N / seconds(work))
