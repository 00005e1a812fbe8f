"""Buckets: speed, requests and what they would cost, on emulators of S3, Azure and Google.

``python -m tests.benchmarks.buckets [--quick]`` writes ``docs/benchmarks-buckets.md``, medians of
several rounds, each figure taken by a fresh process at a fresh place; with ``--quick`` it measures
less, once, and only prints. Requests are counted by our own client, by what a cloud charges for
them; a request that was repeated counts again.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from omniq_nb import OmniQ, OmniQConfig, State
from omniq_nb.config import StorageBackendConfig
from omniq_nb.models.result import Result
from omniq_nb.storage.base import Query
from omniq_nb.storage.buckets.connection import Connection, Usage
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.testing.servers import Servers
from omniq_nb.testing.servers.buckets import BucketServer
from tests.benchmarks.__main__ import ROOT, RUNS, Figures, medians
from tests.benchmarks.page import taken

TABLE = ROOT / "docs" / "benchmarks-buckets.md"

SERVERS = {
    "seaweed": "SeaweedFS",
    "azurite": "azurite",
    "google": "fake-gcs-server",
    "moto": "moto",
}

BUSY = ("seaweed", "azurite", "google")
"""Where many processes work at once: moto answers one request after the other."""

CROWDS = (1, 4, 16)
"""Worker processes on SeaweedFS."""

PRICES = Usage(writes=5.0, lists=5.0, reads=0.4, deletes=0.0)
"""Dollars for a million requests of each class."""

PRICED = """\
At the list price of Amazon S3 Standard in US East (N. Virginia) as we know it of 2025: $5.00 for a
million PUT, COPY, POST or LIST, $0.40 for a million GET, nothing for DELETE. The machine that
measured could not reach Amazon's own page, so the price was not checked on the day above. Storage
and traffic out of the region are not in it."""


def nothing(i: int) -> int:
    """The task of most benchmarks."""
    return i


def config(backend: Figures) -> OmniQConfig:
    """A place that a parent process names."""
    return OmniQConfig(task_queue_backend=StorageBackendConfig.from_dict(backend))


class Counted:
    """Every connection that is made in the block, and what it cost."""

    def __enter__(self) -> "Counted":
        self._made: list[Connection] = []
        self._before = original = Connection.__init__

        def init(connection: Connection, *arguments: Any) -> None:
            original(connection, *arguments)
            self._made.append(connection)

        Connection.__init__ = init  # type: ignore[method-assign]
        return self

    def __exit__(self, *exc_info: object) -> None:
        Connection.__init__ = self._before  # type: ignore[method-assign]

    def usage(self) -> Usage:
        """All of them together."""
        return added([connection.usage for connection in self._made])


def added(usages: list[Usage]) -> Usage:
    """The sum."""
    return Usage(*(sum(numbers) for numbers in zip(*usages, strict=True)))


def less(usage: Usage, before: Usage) -> Usage:
    """The difference."""
    return Usage(*(now - then for now, then in zip(usage, before, strict=True)))


def dollars(usage: Usage, tasks: int) -> float:
    """For a million tasks."""
    return sum(n * price for n, price in zip(usage, PRICES, strict=True)) / tasks


# ---------------------------------------------------------------- in processes of their own


def bulk_and_drain(backend: Figures, tasks: int) -> Figures:
    """Enqueue at once, then one worker of this process until the queue is empty."""
    with Counted() as counted, OmniQ(config(backend)) as oq:
        before, started = counted.usage(), time.perf_counter()
        batch = oq.map(nothing, range(tasks))
        bulk_seconds = time.perf_counter() - started
        bulk = less(counted.usage(), before)
        started = time.perf_counter()
        oq.workers.start(1)
        oq.workers.stop(drain=True, timeout=None)
        seconds = time.perf_counter() - started
        assert batch.counts() == {State.SUCCEEDED: tasks}
        assert oq.sql("select count(*) as n from results")["n"][0] == tasks
        query = "select count(*) as n from events where type = 'succeeded'"
        assert oq.sql(query)["n"][0] == tasks
    return {
        "bulk_seconds": bulk_seconds,
        "bulk_writes": bulk.writes + bulk.lists,
        "drain": tasks / seconds,
    }


def work(backend: Figures) -> Figures:
    """One of several worker processes: until the queue is empty."""
    with Counted() as counted:
        with OmniQ(config(backend)) as oq:
            print("ready", flush=True)
            input()
            started = time.perf_counter()
            oq.workers.start(1)
            oq.workers.stop(drain=True, timeout=None)
            seconds = time.perf_counter() - started
        return {"usage": counted.usage()._asdict(), "seconds": seconds}


def idle(backend: Figures) -> Figures:
    """A worker that has had nothing to do for ten seconds, for twenty more."""
    with Counted() as counted, OmniQ(config(backend)) as oq:
        oq.workers.start(1)
        oq.submit(nothing, 1).result(timeout=60)
        time.sleep(10)
        before = counted.usage()
        time.sleep(20)
        return {"per_second": sum(less(counted.usage(), before)) / 20}


def fill(backend: Figures, rows: int, file: str) -> Figures:
    """Store results and compact them, and put the same rows into one local Parquet file."""
    import duckdb

    names = [f"task {number}" for number in range(20)]

    async def stored() -> list[str]:
        where = config(backend).resolve("result_storage")
        store = StorageBackendFactory.create_place(where).result_storage()
        await store.open()
        now = time.time()
        for start in range(0, rows, 20_000):
            await store.put(
                [
                    Result(
                        task_id=f"t{i:09}",
                        token=1,
                        name=names[i % 20],
                        queue="default",
                        state=State.SUCCEEDED,
                        attempt=1,
                        created_at=now,
                        started_at=now,
                        finished_at=now + (i * 7919 % 1000) / 1000,
                        value=str(i),
                    )
                    for i in range(start, start + 20_000)
                ]
            )
        await store.compact()
        scan = await store.scan(Query())
        await store.close()
        assert not scan.table.num_rows
        return list(scan.files)

    segments = asyncio.run(stored())
    # As DuckDB writes it, so that it reads it as fast as it can.
    duckdb.read_parquet(segments, union_by_name=True).write_parquet(file)
    assert duckdb.read_parquet(file).shape[0] == rows
    return {"segments": len(segments)}


P95 = "select name, quantile_cont({}, 0.95) as p95 from {} group by name order by name"


def explore(backend: Figures, file: str) -> Figures:
    """p95 of the duration by name: at first, again, and by DuckDB over one local Parquet file."""
    import duckdb
    from pandas.testing import assert_frame_equal

    bare = P95.format("epoch(finished_at - started_at)", f"'{file}'")

    def timed(ask: Callable[[], Any]) -> tuple[float, Any]:
        started = time.perf_counter()
        answer = ask()
        return time.perf_counter() - started, answer

    def ours() -> Any:
        return oq.sql(P95.format("duration", "results"))

    def limit() -> Any:
        return duckdb.connect().sql(bare).df()

    with OmniQ(config(backend)) as oq:
        limit()
        first, answer = timed(ours)
        one_file, same = timed(limit)
        second, again = timed(ours)
    assert_frame_equal(answer, again)
    assert_frame_equal(answer, same, check_exact=False)
    assert len(answer) == 20
    return {"first": first, "second": second, "one_file": one_file}


MEASURES: dict[str, Callable[..., Figures]] = {
    "bulk_and_drain": bulk_and_drain,
    "work": work,
    "idle": idle,
    "fill": fill,
    "explore": explore,
}


# ---------------------------------------------------------------- the whole


def command(measure: str, backend: StorageBackendConfig, *words: object) -> list[str]:
    """How to run a measure in a process of its own."""
    given = json.dumps([backend.to_dict(), *words])
    return [sys.executable, "-m", __spec__.name, measure, given]


def measured(measure: str, backend: StorageBackendConfig, *words: object) -> Figures:
    """Run a measure, with nothing in its caches."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command(measure, backend, *words),
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
    if done.returncode:
        raise SystemExit(f"{measure} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def crowd(backend: StorageBackendConfig, workers: int, tasks: int) -> Figures:
    """So many worker processes at one queue: requests from the enqueue to the last event."""
    children = [
        subprocess.Popen(
            command("work", backend),
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    with Counted() as counted:
        with OmniQ(config(backend.to_dict())) as oq:
            oq.map(nothing, range(tasks))
        enqueued = counted.usage()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [
        json.loads(child.communicate(timeout=1800)[0].splitlines()[-1]) for child in children
    ]
    usage = added([enqueued, *(Usage(**answer["usage"]) for answer in answers)])
    return {
        "usage": usage._asdict(),
        "rate": tasks / max(answer["seconds"] for answer in answers),
        "dollars": dollars(usage, tasks),
    }


def main() -> None:
    """Measure, print, and write the page unless it is quick."""
    quick = "--quick" in sys.argv
    tasks, rows = (2_000, 100_000) if quick else (10_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = folder
        with Servers(lambda kind: Path(folder, kind)) as servers:

            def fresh(kind: str) -> StorageBackendConfig:
                server = servers(kind)
                assert isinstance(server, BucketServer)
                return server.backend()

            history, file = fresh("seaweed"), str(Path(folder, "one.parquet"))
            segments = measured("fill", history, rows, file)["segments"]
            figures = medians(
                {
                    **{
                        f"drain {kind}": lambda kind=kind: measured(  # type: ignore[misc]
                            "bulk_and_drain", fresh(kind), tasks
                        )
                        for kind in SERVERS
                    },
                    **{
                        f"{workers} {kind}": lambda kind=kind, workers=workers: crowd(  # type: ignore[misc]
                            fresh(kind), workers, tasks
                        )
                        for kind in BUSY
                        for workers in (CROWDS if kind == BUSY[0] else (4,))
                    },
                    "idle": lambda: measured("idle", fresh("seaweed")),
                    "explore": lambda: measured("explore", history, file),
                },
                1 if quick else RUNS,
            )
    page = document(figures, tasks, rows, segments, 1 if quick else RUNS)
    print(page)
    if not quick:
        TABLE.write_text(page, encoding="utf-8")


def document(f: dict[str, Figures], tasks: int, rows: int, segments: int, runs: int) -> str:
    """The Markdown page."""
    lines = [
        "# Benchmarks of buckets",
        "",
        "Written by `python -m tests.benchmarks.buckets`: "
        + (f"medians of {runs} rounds, in which all took turns." if runs > 1 else "one round."),
        f"{taken().removesuffix('.')}, which clients and servers share.",
        "The servers are emulators: what the way to a real cloud adds to each request is not in "
        "these",
        "figures, but the number of requests is. No-op tasks; results and events are stored, and "
        "checked",
        "at the end.",
        "",
        f"| work | {' | '.join(SERVERS.values())} | to reach | |",
        "|---|" + "---:|" * len(SERVERS) + "---|---|",
    ]

    def row(
        work: str,
        key: str,
        value: Callable[[Figures], float],
        places: int,
        bound: str = "",
        met: Callable[[float], bool] = lambda _: True,
        binding: Sequence[str] = tuple(SERVERS),
    ) -> None:
        found = {kind: value(f[f"{key} {kind}"]) for kind in SERVERS if f"{key} {kind}" in f}
        cells = [f"{found[kind]:,.{places}f}" if kind in found else "" for kind in SERVERS]
        kept = all(met(found[kind]) for kind in binding if kind in found)
        said = "" if not bound else "yes" if kept else "NO"
        lines.append(f"| {work} | {' | '.join(cells)} | {bound} | {said} |")

    def writes(figures: Figures) -> float:
        per_thousand: float = (
            (figures["usage"]["writes"] + figures["usage"]["lists"]) * 1000 / tasks
        )
        return per_thousand

    row(f"{tasks:,} tasks enqueued in bulk, s", "drain", lambda g: g["bulk_seconds"], 2,
        "2 s or less", lambda s: s <= 2)  # fmt: skip
    row("write requests for that", "drain", lambda g: g["bulk_writes"], 0, "20 or fewer",
        lambda n: n <= 20)  # fmt: skip
    row(f"drain {tasks:,} tasks, 1 worker, tasks/s", "drain", lambda g: g["drain"], 0,
        "1,000 on SeaweedFS and azurite", lambda n: n >= 1000, ("seaweed", "azurite"))  # fmt: skip
    row("drain by 4 worker processes, tasks/s", "4", lambda g: g["rate"], 0)
    row("write requests for 1,000 tasks, 4 busy worker processes", "4", writes, 1,
        "60 or fewer", lambda n: n <= 60)  # fmt: skip
    idle, asked = f["idle"]["per_second"], f["explore"]
    ratio = asked["second"] / asked["one_file"]
    lines += [
        "",
        "| work | measured | to reach | |",
        "|---|---:|---|---|",
        f"| idle worker, from 10 s on, requests/s | {idle:.2f} | 1 or fewer | {_said(idle <= 1)} |",
        f"| p95 of the duration by task name, {rows:,} compacted results, second run "
        f"| {asked['second']:.3f} s | | |",
        f"| the same by DuckDB on one local Parquet file | {asked['one_file']:.3f} s | | |",
        f"| ratio of these | {ratio:.2f} | 3 or less | {_said(ratio <= 3)} |",
        f"| the first run, which fetches the compacted rows (segments: {segments}) | "
        f"{asked['first']:.3f} s | | |",
        "",
        "## Requests, and what they cost",
        "",
        "For 1,000 no-op tasks on SeaweedFS, from the enqueue to stored results and events. Each "
        "worker is a process of its own; its connecting and leaving count.",
        "",
        "| workers | tasks/s | writes | lists | reads | deletes | dollars for a million tasks |",
        "|---:|" + "---:|" * 6,
    ]
    for workers in CROWDS:
        found = f[f"{workers} seaweed"]
        cells = [f"{found['usage'][name] * 1000 / tasks:.1f}" for name in Usage._fields]
        lines.append(
            f"| {workers} | {found['rate']:,.0f} | {' | '.join(cells)} | {found['dollars']:.2f} |"
        )
    lines += ["", *PRICED.splitlines(), ""]
    return "\n".join(lines)


def _said(met: bool) -> str:
    return "yes" if met else "NO"


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] in MEASURES:
        answer = MEASURES[sys.argv[1]](*json.loads(sys.argv[2]))
        print(msgspec.json.encode(answer).decode())
    else:
        main()
