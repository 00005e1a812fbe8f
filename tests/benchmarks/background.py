"""Background workers: how soon they work, how fast, how soon a kernel finds its work again.

``python -m tests.benchmarks.background`` writes ``docs/benchmarks-background.md``.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from omniq_nb import OmniQ
from tests.benchmarks.__main__ import ROOT, medians
from tests.benchmarks.measure import seconds
from tests.benchmarks.ours import N, nothing, place
from tests.benchmarks.page import Row, table, taken

PAGE = ROOT / "docs" / "benchmarks-background.md"

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
    """No-op tasks per second, with results and events stored."""
    return rate(store, folder, nothing, range(4 * N), **words)


def cores(store: str, folder: Path) -> float:
    """How many times faster two background workers count than one."""
    one, two = (
        rate(store, folder, count, [2_000_000] * 120, n=n, kind="background") for n in (1, 2)
    )
    return two / one


def rate(
    store: str, folder: Path, function: Callable[[int], int], work: Iterable[int],
    **words: object,
) -> float:  # fmt: skip
    """Tasks per second from when all workers are at work to the last end."""
    with OmniQ(place(store, folder)) as oq:
        batch = oq.map(function, work, name="drain")
        oq.workers.start(**words)  # type: ignore[arg-type]
        batch.wait()
        oq.workers.stop(kind="background", timeout=0)
        rates = oq.sql(
            """
            with at_work as (
                select max(since) as since
                from (select min(finished_at) as since from results group by worker)
            )
            select count(*) / epoch(max(finished_at) - min(since)) as rate
            from results, at_work where finished_at > since
            """
        )
    return float(rates["rate"][0])


def reattach(store: str, folder: Path) -> float:
    """Seconds in a fresh process, once it has imported us, until 20,000 tasks are counted."""
    file = folder / f"{store}.yaml"
    with OmniQ(place(store, folder)) as oq:
        oq.config.to_yaml(file)
        oq.map(nothing, range(2 * N), name="drain")
    words = [sys.executable, "-c", REATTACH, str(file)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


MEASURES: dict[str, Callable[[str, Path], float]] = {
    "first": first,
    "reattach": reattach,
    "threads": lambda *place: drain(*place, n=2),
    "background": lambda *place: drain(*place, n=2, kind="background"),
    "background threads": lambda *place: drain(*place, n=2, kind="background", isolation="thread"),
    "cores": cores,
}

INTRODUCTION = """# Benchmarks of background workers

Written by `python -m tests.benchmarks.background`: medians of three rounds, all taking turns.
{taken} No-op tasks, unless said; results and events are stored. Each background worker has a child
process for the tasks, unless said: what a task does to its process costs that task alone. Drains
are of 40,000 tasks. Tasks are counted from when all workers are at work: how long it takes until
then is the first row.
"""


def rows(f: dict[str, float]) -> list[Row]:
    """What is shown of one store."""
    threads = "2 threads of the kernel"
    return [
        Row("start of 4 workers to first task done", f["first"], "s", "2 seconds", 2, 1, True),
        Row("a new kernel finds 20,000 tasks", f["reattach"], "s", "1 second", 1, 1, True),
        Row("drain, 2 workers", f["background"], "/s", threads, f["threads"], 1),
        Row("the same without children", f["background threads"], "/s", threads, f["threads"], 1),
        Row("tasks that compute, 2 workers", f["cores"], "x", "1 worker", 1, 1.8),
    ]


def main() -> None:
    """Measure, and write the page."""
    lines = [INTRODUCTION.format(taken=taken())]
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CONFIG_HOME"] = name
        for store, title in (("sqlite", "SQLite"), ("file", "File")):
            figures = medians(
                {what: partial(measure, store, Path(name)) for what, measure in MEASURES.items()}
            )
            lines += [f"## {title}", "", *table(rows(figures)), ""]
    page = "\n".join(lines)
    PAGE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
