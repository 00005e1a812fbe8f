"""huey on SQLite: single enqueue, drain by one consumer thread, idle latency."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from huey import SqliteHuey
from measure import percentiles, report, seconds

folder = Path(sys.argv[1])
N = 10_000


def drain() -> tuple[float, float]:
    huey = SqliteHuey(filename=str(folder / "drain.db"), results=False)
    left = threading.Semaphore(0)

    @huey.task()
    def nothing(i: int) -> None:
        left.release()

    enqueue = N / seconds(lambda: [nothing(i) for i in range(N)])
    consumer = huey.create_consumer(workers=1, initial_delay=0.001, backoff=1.0, max_delay=0.001)

    def work() -> None:
        consumer.start()
        for _ in range(N):
            left.acquire()
        while len(huey):
            time.sleep(0.001)

    rate = N / seconds(work)
    consumer.stop(graceful=True)
    huey.storage.close()
    return enqueue, rate


def latency() -> dict[str, float]:
    huey = SqliteHuey(filename=str(folder / "idle.db"), results=False)
    started: list[float] = []
    ran = threading.Event()

    @huey.task()
    def stamp() -> None:
        started.append(time.perf_counter())
        ran.set()

    consumer = huey.create_consumer(workers=1, initial_delay=0.01, backoff=1.0, max_delay=0.01)
    consumer.start()
    taken = []
    for _ in range(200):
        time.sleep(0.005)
        ran.clear()
        submitted = time.perf_counter()
        stamp()
        ran.wait()
        taken.append(started[-1] - submitted)
    consumer.stop(graceful=True)
    return percentiles(taken)


enqueue, rate = drain()
report(enqueue=enqueue, drain=rate, latency=latency())
