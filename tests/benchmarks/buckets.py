"""Buckets: speed, requests and what they would cost, on emulators of S3, Azure and Google.

``python -m tests.benchmarks.buckets [--quick]`` writes ``docs/benchmarks-buckets.md``; with
``--quick`` it measures less and only prints. Requests are counted by our own client, by what a
cloud charges for them; a request that was repeated counts again.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
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

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "docs" / "benchmarks-buckets.md"

SERVERS = {
    "seaweed": "SeaweedFS",
    "azurite": "azurite",
    "google": "fake-gcs-server",
    "moto": "moto",
}

PRICES = Usage(writes=5.0, lists=5.0, reads=0.4, deletes=0.0)
PRICED = "Amazon S3 Standard, us-east-1, list price of November 2026"
"""Dollars for a million requests of each class."""

Figures = dict[str, Any]


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
    return {"bulk_seconds": bulk_seconds, "bulk_writes": bulk.writes + bulk.lists,
            "drain": tasks / seconds}  # fmt: skip


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
        return {"usage": list(counted.usage()), "seconds": seconds}


def idle(backend: Figures) -> Figures:
    """A worker that has had nothing to do for ten seconds, for twenty more."""
    with Counted() as counted, OmniQ(config(backend)) as oq:
        oq.workers.start(1)
        oq.submit(nothing, 1).result(timeout=60)
        time.sleep(10)
        before = counted.usage()
        time.sleep(20)
        return {"per_second": sum(less(counted.usage(), before)) / 20}


def explore(backend: Figures, rows: int) -> Figures:
    """p95 of the duration by name, over compacted results and over one local Parquet file."""
    import asyncio

    import duckdb
    import pyarrow.parquet as pq

    names = [f"task {number}" for number in range(20)]

    async def fill(file: Path) -> None:
        where = config(backend).resolve("result_storage")
        store = StorageBackendFactory.create_place(where).result_storage()
        await store.open()
        now = time.time()
        for start in range(0, rows, 20_000):
            await store.put(
                [
                    Result(task_id=f"t{i:09}", token=1, name=names[i % 20], queue="default",
                           state=State.SUCCEEDED, attempt=1, created_at=now, started_at=now,
                           finished_at=now + (i * 7919 % 1000) / 1000, value=str(i))
                    for i in range(start, start + 20_000)
                ]
            )  # fmt: skip
        await store.compact()
        scan = await store.scan(Query())
        await store.close()
        import pyarrow as pa

        tables = [pq.read_table(path, partitioning=None) for path in scan.files]
        pq.write_table(pa.concat_tables(tables, promote_options="default"), file)

    query = """select name, quantile_cont({}, 0.95) as p95 from {} group by name order by name"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "one.parquet")
        asyncio.run(fill(file))
        took: dict[str, list[float]] = {"ours": [], "one file": []}
        bare = query.format("epoch(finished_at - started_at)", f"'{file}'")
        with OmniQ(config(backend)) as oq:
            for _ in range(4):
                for name, ask in {
                    "ours": lambda: oq.sql(query.format("duration", "results")),
                    "one file": lambda: duckdb.connect().sql(bare).df(),
                }.items():
                    started = time.perf_counter()
                    answer = ask()
                    took[name].append(time.perf_counter() - started)
                    assert len(answer) == 20
    return {"first": took["ours"][0], "second": min(took["ours"][1:]),
            "one_file": min(took["one file"][1:])}  # fmt: skip


MEASURES: dict[str, Callable[..., Figures]] = {
    "bulk_and_drain": bulk_and_drain,
    "work": work,
    "idle": idle,
    "explore": explore,
}


# ---------------------------------------------------------------- the whole


def command(measure: str, backend: StorageBackendConfig, *words: object) -> list[str]:
    """How to run a measure in a process of its own."""
    given = json.dumps(backend.to_dict())
    return [sys.executable, "-m", __spec__.name, measure, given, *map(str, words)]


def measured(measure: str, server: BucketServer, *words: object) -> Figures:
    """Run a measure at a fresh place."""
    print(f"{type(server).__name__}: {measure}", file=sys.stderr)
    done = subprocess.run(
        command(measure, server.backend(), *words), cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=1800,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{measure} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def crowd(server: BucketServer, workers: int, tasks: int) -> Figures:
    """So many worker processes at one queue: requests from the enqueue to the last event."""
    print(f"{type(server).__name__}: {workers} workers", file=sys.stderr)
    backend = server.backend()
    children = [
        subprocess.Popen(command("work", backend), cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(workers)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    with Counted() as counted:
        with OmniQ(config(backend.to_dict())) as oq:
            oq.map(nothing, range(tasks))
        enqueued = counted.usage()
    answers = [json.loads(out.splitlines()[-1]) for out in _told(children)]
    usage = added([enqueued, *(Usage(*answer["usage"]) for answer in answers)])
    return {
        "usage": usage,
        "rate": tasks / max(answer["seconds"] for answer in answers),
        "dollars": dollars(usage, tasks),
    }


def _told(children: list[subprocess.Popen[str]]) -> list[str]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    return [child.communicate(timeout=1800)[0] for child in children]


def main() -> None:
    """Measure, print, and write the page unless it is quick."""
    quick = "--quick" in sys.argv
    tasks, rows = (2_000, 100_000) if quick else (10_000, 1_000_000)
    lines = [f"| work | {' | '.join(SERVERS.values())} | at least |", "|---|" + "---:|" * 5]
    found: dict[str, Figures] = {}
    crowds: dict[int, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = folder
        with Servers(lambda kind: Path(folder, kind)) as servers:
            for kind in SERVERS:
                server = servers(kind)
                assert isinstance(server, BucketServer)
                found[kind] = measured("bulk_and_drain", server, tasks)
                found[kind] |= crowd(server, 4, tasks)
            server = servers("seaweed")
            assert isinstance(server, BucketServer)
            crowds = {workers: crowd(server, workers, tasks) for workers in (1, 4, 16)}
            resting = measured("idle", server)
            explored = measured("explore", server, rows)

    def row(work: str, tell: Callable[[Figures], str], least: str) -> None:
        lines.append(f"| {work} | {' | '.join(tell(found[kind]) for kind in SERVERS)} | {least} |")

    row(f"{tasks:,} tasks enqueued in bulk, s", lambda f: f"{f['bulk_seconds']:.2f}", "2")
    row("write requests for that", lambda f: str(f["bulk_writes"]), "20 or fewer")
    row(f"drain {tasks:,} no-op tasks, 1 worker, tasks/s", lambda f: f"{f['drain']:,.0f}",
        "1,000 on SeaweedFS and azurite")  # fmt: skip
    row("the same, 4 worker processes, tasks/s", lambda f: f"{f['rate']:,.0f}", "")
    row(
        "write requests for 1,000 tasks, 4 worker processes, busy",
        lambda f: f"{(f['usage'].writes + f['usage'].lists) * 1000 / tasks:.0f}",
        "60 or fewer",
    )
    lines += [
        "", "| workers | writes | lists | reads | deletes | dollars for a million tasks |",
        "|---:|" + "---:|" * 5,
        *(
            f"| {workers} | " + " | ".join(f"{n * 1000 / tasks:.1f}" for n in f["usage"])
            + f" | {f['dollars']:.2f} |"
            for workers, f in crowds.items()
        ),
        "", f"Requests for 1,000 no-op tasks on SeaweedFS, from the enqueue to stored results and "
        f"events, each worker a process of its own. {PRICED}: $5.00 for a million writes or lists, "
        "$0.40 for a million reads. Longer tasks share fewer requests: a worker claims ahead what "
        "a second is worth.",
        "", f"A worker that has had nothing to do for ten seconds: {resting['per_second']:.2f} "
        "requests a second (at most 1).",
        "", f"p95 of the duration by task name, {rows:,} compacted results: "
        f"{explored['first']:.2f} s the first time, {explored['second']:.3f} s the second; DuckDB "
        f"on one local Parquet file of the same rows {explored['one_file']:.3f} s: "
        f"{explored['second'] / explored['one_file']:.1f}x (at most 3x).",
    ]  # fmt: skip
    page = "\n".join(lines)
    print(page)
    if not quick:
        about = (
            f"# Benchmarks of buckets\n\nMade by `python -m tests.benchmarks.buckets` on "
            f"{datetime.now(UTC):%Y-%m-%d}: {platform.system()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}. Emulators on the same machine: what a real cloud adds "
            "to each request is not in these figures.\n\n"
        )
        TABLE.write_text(about + page + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] in MEASURES:
        words = [int(word) for word in sys.argv[3:]]
        answer = MEASURES[sys.argv[1]](json.loads(sys.argv[2]), *words)
        print(msgspec.json.encode(answer).decode())
    else:
        main()
