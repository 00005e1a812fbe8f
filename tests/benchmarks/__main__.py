"""Measure everything and write `docs/benchmarks.md`: ``python -m tests.benchmarks [--quick]``.

Peers get a virtual environment of their own, kept beside this file. Every figure is the median
of several fresh processes; peer, limit and we take turns within one run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.page import Row, number, table, taken

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS_ENV = HERE / ".venv-peers"
PEERS = ["huey", "litequeue", "localqueue", "persist-queue", "ray", "ipyparallel", "distributed"]
TABLE = ROOT / "docs" / "benchmarks.md"
RUNS = 3

Figures = dict[str, Any]
T = TypeVar("T", float, Figures)


def run(command: list[str]) -> Figures:
    """One process; its last line of output is JSON."""
    os.sync()  # else it also waits for what the one before left to the disk
    with tempfile.TemporaryDirectory(dir=os.environ.get("OMNIQ_BENCH_DIR")) as folder:
        command = [part.replace("FOLDER", folder) for part in command]
        env = os.environ | {"OMNIQ_SECRET_KEY": "benchmark", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=1800
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def peer(script: str, *words: str) -> Figures:
    """A script of `peers/`, in the peers' environment."""
    return run([str(PEERS_ENV / "bin" / "python"), str(HERE / "peers" / script), "FOLDER", *words])


def ours(what: str, store: str) -> Figures:
    """A measure of `ours.py`."""
    return run([sys.executable, "-m", "tests.benchmarks.ours", what, store, "FOLDER"])


def medians(measures: dict[str, Callable[[], T]], runs: int = RUNS) -> dict[str, T]:
    """Several rounds of all measures in turn, and the median of each figure."""
    rounds: dict[str, list[T]] = {name: [] for name in measures}
    for turn in range(runs):
        for name, measure in measures.items():
            print(f"round {turn + 1} of {runs}: {name}", file=sys.stderr)
            rounds[name].append(measure())
    return {name: _median(figures) for name, figures in rounds.items()}


def _median(figures: list[Any]) -> Any:
    if isinstance(figures[0], dict):
        return {key: _median([one[key] for one in figures]) for key in figures[0]}
    return statistics.median(figures)


def imports(code: str) -> Figures:
    """Seconds to run a line in a fresh interpreter, best of five."""
    timed = f"import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)"
    command = [sys.executable, "-c", timed]
    taken = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    return {"seconds": min(taken)}


def main() -> None:
    """Measure, and write the table."""
    if not PEERS_ENV.exists():
        venv.create(PEERS_ENV, with_pip=True)
        pip = [str(PEERS_ENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PEERS], check=True)
    stores = ("memory", "sqlite", "file")
    figures = medians(
        {
            "huey": lambda: peer("huey_sqlite.py"),
            "queues": lambda: peer("sqlite_queues.py"),
            "limits": lambda: peer("limits.py"),
            "pool": lambda: peer("in_kernel.py", "pool"),
            "ray": lambda: peer("in_kernel.py", "ray"),
            "ipyparallel": lambda: peer("in_kernel.py", "ipyparallel"),
            "distributed": lambda: peer("in_kernel.py", "distributed"),
            **{
                f"{what} {store}": lambda what=what, store=store: ours(what, store)  # type: ignore[misc]
                for what in ("enqueue", "drain", "latency")
                for store in stores
            },
            "drain_processes file": lambda: ours("drain_processes", "file"),
            "drain_processes sqlite": lambda: ours("drain_processes", "sqlite"),
            "in_kernel memory": lambda: ours("in_kernel", "memory"),
            "import us": lambda: imports("import omniq_nb; omniq_nb.OmniQ"),
            "import bare": lambda: imports("import asyncio, sqlite3"),
        },
        1 if "--quick" in sys.argv else RUNS,
    )
    figures |= {f"memory {store}": ours("memory", store) for store in stores}
    history = [sys.executable, "-m", "tests.benchmarks.history"]
    figures["history file"] = run([*history, "file", "FOLDER"])
    figures["history sqlite"] = run([*history, "sqlite", "FOLDER", "1000000"])
    figures["history memory"] = run([*history, "memory", "FOLDER", "1000000"])
    TABLE.write_text(document(figures))
    print(TABLE.read_text())


def document(f: dict[str, Figures]) -> str:
    """The Markdown page."""
    best = max(f["ray"]["rate"], f["ipyparallel"]["rate"], f["distributed"]["rate"])
    rows: list[Row] = []

    def row(*words: Any) -> None:
        rows.append(Row(*words))

    huey, pool = f["huey"], f["pool"]
    row("SQLite drain", f["drain sqlite"]["drain"], "/s", "huey", huey["drain"], 2)
    row("SQLite bulk enqueue", f["enqueue sqlite"]["bulk"], "/s", "localqueue bulk",
        f["queues"]["localqueue"]["bulk"], 0.25)  # fmt: skip
    row("SQLite single enqueue", f["enqueue sqlite"]["enqueue"], "/s", "huey", huey["enqueue"], 1)
    row("file drain, fsync, 1 process", f["drain file"]["drain"], "/s", "huey", huey["drain"], 2)
    row("file drain, fsync, 4 processes", f["drain_processes file"]["drain"], "/s", "huey",
        huey["drain"], 2)  # fmt: skip
    row("SQLite drain, 4 processes", f["drain_processes sqlite"]["drain"], "/s", "huey",
        huey["drain"], 2)  # fmt: skip
    row("file, 10,000 enqueued in bulk", f["enqueue file"]["bulk_seconds"], "s", "1 second", 1, 1,
        True)  # fmt: skip
    row("memory, submit and gather a batch", f["in_kernel memory"]["batch"], "/s",
        "best of ray, ipyparallel, distributed", best, 4)  # fmt: skip
    row("memory, submit one by one and gather", f["in_kernel memory"]["single"], "/s",
        "best of ray, ipyparallel, distributed", best, 4)  # fmt: skip
    row("memory, round trip p50", f["latency memory"]["trip"]["p50"], "ms", "0.7 ms", 0.7, 1, True)
    for store in ("memory", "sqlite", "file"):
        row(f"{store}, idle latency p50", f[f"latency {store}"]["latency"]["p50"], "ms", "2 ms", 2,
            1, True)  # fmt: skip
    row("10M events by type and hour, file", f["history file"]["ours"], "s",
        "DuckDB, one Parquet file", f["history file"]["limit"], 2.5, True)  # fmt: skip
    row("import omniq_nb (and OmniQ)", f["import us"]["seconds"] - f["import bare"]["seconds"], "s",
        "0.2 s more than asyncio, sqlite3", 0.2, 1, True)  # fmt: skip

    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m tests.benchmarks`: medians of one run, in which all took turns.",
        f"{taken()} No-op tasks; our drains store results and events and run until the queue is "
        "empty.",
        "",
        *table(rows),
        "",
        "## More figures",
        "",
        "| what | figure |",
        "|---|---:|",
    ]
    more: dict[str, str] = {
        "limit: sqlite3, claim 64 and complete 64": f"{number(f['limits']['sqlite'])} /s",
        "limit: linked journal entries of 32 with fsync": f"{number(f['limits']['journal'])} /s",
        "limit: ThreadPoolExecutor, submit and gather": f"{number(pool['rate'])} /s",
        "limit: ThreadPoolExecutor, round trip p50": f"{pool['trip']['p50']:.2f} ms",
        "huey on SQLite, idle latency p50 / p99": _pair(huey["latency"]),
    }
    for name in ("ray", "ipyparallel", "distributed"):
        more[f"{name}, submit and gather"] = f"{number(f[name]['rate'])} /s"
        more[f"{name}, round trip p50 / p99"] = _pair(f[name]["trip"])
    for name, queue in f["queues"].items():
        more[f"{name}, enqueue / drain"] = (
            f"{number(queue['enqueue'])} / {number(queue['drain'])} /s"
        )
    for store in ("memory", "sqlite", "file"):
        more[f"{store}: single enqueue"] = f"{number(f[f'enqueue {store}']['enqueue'])} /s"
        more[f"{store}: bulk enqueue"] = f"{number(f[f'enqueue {store}']['bulk'])} /s"
        more[f"{store}: drain, one thread"] = f"{number(f[f'drain {store}']['drain'])} /s"
        more[f"{store}: idle latency p50 / p99"] = _pair(f[f"latency {store}"]["latency"])
        more[f"{store}: round trip p50 / p99"] = _pair(f[f"latency {store}"]["trip"])
        more[f"{store}: memory per queued task"] = f"{f[f'memory {store}']['bytes']:.0f} bytes"
        history = f[f"history {store}"]
        rows_text = "10M" if store == "file" else "1M"
        more[f"{store}: {rows_text} events by type and hour (bare DuckDB on one Parquet file)"] = (
            f"{history['ours']:.3f} s ({history['limit']:.3f} s)"
        )
    lines += [f"| {what} | {figure} |" for what, figure in more.items()]
    return "\n".join(lines) + "\n"


def _pair(figures: dict[str, float]) -> str:
    return f"{figures['p50']:.2f} / {figures['p99']:.2f} ms"


if __name__ == "__main__":
    main()
