"""Background workers: how soon they work, how fast, how soon a kernel finds its work again.

``python -m tests.benchmarks.background`` prints the figures, each the median of three.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from omniq_nb import OmniQ
from tests.benchmarks.measure import seconds
from tests.benchmarks.ours import N, nothing, place

RUNS = 3

REATTACH = """
from time import perf_counter
import sys
from omniq_nb import OmniQ
start = perf_counter()
oq = OmniQ.from_yaml(sys.argv[1])
repr(oq.batch("drain"))
print(perf_counter() - start)
oq.close()
"""


def count(n: int) -> int:
    """Work for one core that never lets go of Python's lock."""
    total = 0
    for i in range(n):
        total += i * i
    return total


def first(store: str, folder: Path) -> float:
    """Seconds from the start of four background workers until the first task is done."""
    with OmniQ(place(store, folder)) as oq:
        handle = oq.submit(nothing, 1)
        taken = seconds(lambda: (oq.workers.start(4, kind="background"), handle.result(timeout=60)))
        oq.workers.stop(kind="background", timeout=0)
    return taken


def drain(store: str, folder: Path, **words: object) -> float:
    """Tasks per second, from the first start to the last end, with results and events stored."""
    return 2 * N / span(store, folder, nothing, range(2 * N), **words)


def cores(store: str, folder: Path) -> float:
    """How many times faster two background workers count than one."""
    work = [2_000_000] * 60
    one, two = (span(store, folder, count, work, n=n, kind="background") for n in (1, 2))
    return one / two


def span(
    store: str, folder: Path, function: Callable[[int], int], work: "range | list[int]",
    **words: object,
) -> float:  # fmt: skip
    """Seconds from the first start of a task to the last end."""
    with OmniQ(place(store, folder)) as oq:
        batch = oq.map(function, work, name="drain")
        oq.workers.start(**words)  # type: ignore[arg-type]
        batch.wait()
        oq.workers.stop(kind="background", timeout=0)
        spans = oq.sql("select epoch(max(finished_at) - min(started_at)) as s from results")
    return float(spans["s"][0])


def reattach(store: str, folder: Path) -> float:
    """Seconds in a fresh process, once it has imported us, until 20,000 tasks are counted."""
    file = folder / f"{store}.yaml"
    with OmniQ(place(store, folder)) as oq:
        oq.config.to_yaml(file)
        oq.map(nothing, range(2 * N), name="drain")
    words = [sys.executable, "-c", REATTACH, str(file)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, taking turns, and print."""
    measures: dict[str, Callable[[str, Path], float]] = {
        "start of 4 to first task done, s": first,
        "reattach a batch of 20,000, s": reattach,
        "drain, 2 threads of this process, /s": lambda *a: drain(*a, n=2),
        "drain, 2 background workers, /s": lambda *a: drain(*a, n=2, kind="background"),
        "drain, 2 of them with threads, /s": lambda *a: drain(
            *a, n=2, kind="background", isolation="thread"
        ),
        "CPU-bound, 2 background workers over 1": cores,
    }
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CONFIG_HOME"] = name
        for store in ("sqlite", "file"):
            taken = [
                [measure(store, Path(name)) for measure in measures.values()] for _ in range(RUNS)
            ]
            for what, values in zip(measures, zip(*taken, strict=True), strict=True):
                print(f"{store}: {what}: {statistics.median(values):,.2f}", flush=True)


if __name__ == "__main__":
    main()
