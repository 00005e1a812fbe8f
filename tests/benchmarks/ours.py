"""What omniq_nb does, through its public face: ``python -m tests.benchmarks.ours WHAT FOLDER``.

Each figure is taken in a fresh process. Drains run until the queue is empty, with results and
events stored.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from omniq_nb import OmniQ, State
from tests.benchmarks.measure import percentiles, report, seconds

N = 10_000


def nothing(i: int) -> int:
    """The task of most benchmarks."""
    return i


SEPARATE = {"postgresql": "schema", "redis": "prefix", "nats": "stream"}
"""The option that keeps projects on one server apart, by the scheme of its URL."""


def place(store: str, folder: Path) -> str:
    """The URL of a fresh place. `store` is the name of a local one, or the URL of a server."""
    if "://" in store:
        option = SEPARATE[store.partition(":")[0]]
        return f"{store}?{option}=bench{time.monotonic_ns()}"
    name = f"{store}-{time.monotonic_ns()}"
    return {
        "memory": "memory://",
        "sqlite": f"sqlite:///{folder / name}.db",
        "file": f"file://{folder / name}",
    }[store]


def enqueue(store: str, folder: Path) -> None:
    """One by one, and 10,000 at once."""
    with OmniQ(place(store, folder)) as oq:
        one = N / seconds(lambda: [oq.submit(nothing, i) for i in range(N)])
    with OmniQ(place(store, folder)) as oq:
        bulk = seconds(lambda: oq.map(nothing, range(N)))
    report(enqueue=one, bulk=N / bulk, bulk_seconds=bulk)


def drain(store: str, folder: Path) -> None:
    """By one thread of this process, until the backend is empty."""
    n = 2 * N
    with OmniQ(place(store, folder)) as oq:
        batch = oq.map(nothing, range(n))

        def work() -> None:
            oq.workers.start(1)
            oq.workers.stop(drain=True, timeout=None)

        rate = n / seconds(work)
        assert batch.counts() == {State.SUCCEEDED: n}
        assert oq.sql("select count(*) as n from results")["n"][0] == n
        assert oq.sql("select count(*) as n from events where type = 'succeeded'")["n"][0] == n
    report(drain=rate)


def drain_processes(store: str, folder: Path, processes: int = 4) -> None:
    """By several worker processes, from the first start of a task to the end of the last one."""
    n = 2 * N
    url = place(store, folder)
    with OmniQ(url) as oq:
        batch = oq.map(nothing, range(n))
        code = (
            "from omniq_nb import OmniQ\n"
            f"with OmniQ({url!r}) as oq:\n"
            "    input()\n"
            "    oq.workers.start(1); oq.workers.stop(drain=True, timeout=None)\n"
        )
        children = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
            for _ in range(processes)
        ]
        time.sleep(3)
        start = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        while batch.counts().get(State.SUCCEEDED, 0) < n:
            time.sleep(0.02)
        rate = n / (time.perf_counter() - start)
        for child in children:
            child.communicate()
    report(drain=rate)


def latency(store: str, folder: Path) -> None:
    """From submit to the start of the task, worker and producer in one process, both idle."""
    taken, trips = [], []
    with OmniQ(place(store, folder)) as oq:
        oq.workers.start(1)
        oq.submit(time.perf_counter).result()
        for _ in range(300):
            time.sleep(0.005)
            submitted = time.perf_counter()
            started = oq.submit(time.perf_counter).result()
            trips.append(time.perf_counter() - submitted)
            taken.append(started - submitted)
    report(latency=percentiles(taken), trip=percentiles(trips))


def in_kernel(store: str, folder: Path) -> None:
    """10,000 no-ops submitted and gathered, one by one and as a batch, on two threads."""
    with OmniQ(place(store, folder)) as oq:
        oq.workers.start(2)
        oq.submit(nothing, 0).result()
        single = seconds(lambda: oq.gather(*[oq.submit(nothing, i) for i in range(N)]))
        batch = seconds(lambda: oq.map(nothing, range(N)).results())
    report(single=N / single, batch=N / batch)


def memory(store: str, folder: Path) -> None:
    """Bytes of this process for each of 100,000 queued tasks."""
    n = 100_000
    with OmniQ(place(store, folder)) as oq:
        oq.map(nothing, range(1_000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for start in range(0, n, N):
            oq.map(nothing, range(start, start + N))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report(bytes=(after - before) * 1024 / n)


if __name__ == "__main__":
    measures: dict[str, Callable[[str, Path], None]] = {
        "enqueue": enqueue,
        "drain": drain,
        "drain_processes": drain_processes,
        "latency": latency,
        "in_kernel": in_kernel,
        "memory": memory,
    }
    measures[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
