"""huey on Redis: idle latency."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from huey import RedisHuey
from measure import percentiles, report

huey = RedisHuey(f"huey{time.monotonic_ns()}", url=sys.argv[2], results=False)
started: list[float] = []
ran = threading.Event()


@huey.task()
def stamp() -> None:
    started.append(time.perf_counter())
    ran.set()


consumer = huey.create_consumer(workers=1)
consumer.start()
taken = []
for _ in range(300):
    time.sleep(0.005)
    ran.clear()
    submitted = time.perf_counter()
    stamp()
    ran.wait()
    taken.append(started[-1] - submitted)
consumer.stop(graceful=True)
report(latency=percentiles(taken))
