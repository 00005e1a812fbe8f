"""Network backends beside their peers, on servers of their own.

``python -m tests.benchmarks.network [postgres|redis|nats] [--quick]``: words choose backends, none
means all; ``--quick`` takes one round instead of three.
The servers sync to the disk as they do by default. Server and Python have a core each for Redis,
whose figures swing otherwise.
"""

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omniq_nb.testing.servers import Server, Servers
from omniq_nb.testing.servers.redis import RedisServer
from tests.benchmarks.__main__ import PEERS_ENV, RUNS, Figures, medians, ours, peer, run

PEERS = {
    "postgres": ["pgqueuer", "asyncpg", "dbos"],
    "redis": ["dramatiq[redis]", "arq", "streaq", "rq", "huey", "taskiq<0.12", "taskiq-redis"],
    "nats": ["taskiq-nats"],
}
SETTINGS = {
    "postgres": {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"},
    "redis": {"save": ""},
    "nats": {"jetstream": "enabled"},
}
"""What a server is told, instead of what makes tests fast."""

Measures = dict[str, Callable[[], Figures]]
Row = tuple[str, float, str, float, float, bool]


def postgres(url: str) -> Measures:
    """The peers and we, on PostgreSQL."""
    return {
        "pgqueuer": lambda: peer("pgqueuer_postgres.py", url),
        "dbos": lambda: peer("dbos_postgres.py", url),
        "limits": lambda: peer("postgres_limits.py", url),
        "enqueue": lambda: ours("enqueue", url),
        "drain": lambda: ours("drain", url),
        "latency": lambda: ours("latency", url),
        "explore": lambda: run([sys.executable, "-m", "tests.benchmarks.explore", url]),
    }


def postgres_rows(f: dict[str, Figures]) -> list[Row]:
    """Work, our figure, whose other figure, that, the least ratio, whether smaller is better."""
    drain, peer = f["drain"]["drain"], f["pgqueuer"]
    return [
        ("drain", drain, "pgqueuer, stores no results", peer["drain"], 0.5, False),
        ("drain", drain, "dbos, stores results", f["dbos"]["drain"], 4, False),
        ("drain", drain, "limit: asyncpg, claim 64 and complete 64",
         f["limits"]["claim_and_complete"], 0, False),
        ("bulk enqueue", f["enqueue"]["bulk"], "pgqueuer", peer["bulk"], 0.7, False),
        ("single enqueue", f["enqueue"]["enqueue"], "pgqueuer", peer["enqueue"], 0, False),
        ("idle latency p50, ms", f["latency"]["latency"]["p50"], "pgqueuer",
         peer["latency"]["p50"], 1.5, True),
        ("1M events to a DataFrame, s", f["explore"]["ours"], "bare ADBC", f["explore"]["adbc"],
         1.5, True),
        ("200,000 results, arguments and values typed, s", f["explore"]["typed_results"],
         "bare ADBC, JSON left as text", f["explore"]["adbc_results"], 0, True),
    ]  # fmt: skip


def redis(url: str) -> Measures:
    """The peers and we, on Redis."""
    return {
        **{
            name: lambda script=script: peer(script, url)  # type: ignore[misc]
            for name, script in {
                "dramatiq": "dramatiq_redis.py",
                "arq": "arq_redis.py",
                "streaq": "streaq_redis.py",
                "rq": "rq_redis.py",
                "huey": "huey_redis.py",
                "taskiq": "taskiq_lists.py",
                "limits": "redis_limits.py",
            }.items()
        },
        "enqueue": lambda: ours("enqueue", url),
        "drain": lambda: ours("drain", url),
        "latency": lambda: ours("latency", url),
    }


def redis_rows(f: dict[str, Figures]) -> list[Row]:
    """As `postgres_rows`."""
    drain, bulk = f["drain"]["drain"], f["enqueue"]["bulk"]
    idle = f["latency"]["latency"]["p50"]
    return [
        ("drain", drain, "dramatiq, prefetch 200, stores no results", f["dramatiq"]["drain"], 1,
         False),
        ("drain", drain, "arq, stores results", f["arq"]["drain"], 3, False),
        ("drain", drain, "limit: Lua, complete 64 and claim 64",
         f["limits"]["claim_and_complete"], 0, False),
        ("bulk enqueue", bulk, "streaq", f["streaq"]["bulk"], 3, False),
        ("bulk enqueue", bulk, "rq", f["rq"]["bulk"], 3, False),
        ("single enqueue", f["enqueue"]["enqueue"], "dramatiq", f["dramatiq"]["enqueue"], 0, False),
        ("idle latency p50, ms", idle, "huey", f["huey"]["latency"]["p50"], 1.5, True),
        ("idle latency p50, ms", idle, "taskiq", f["taskiq"]["latency"]["p50"], 1.5, True),
    ]  # fmt: skip


def nats(url: str) -> Measures:
    """The peer and we, on NATS."""
    return {
        "taskiq": lambda: peer("taskiq_jetstream.py", url),
        "enqueue": lambda: ours("enqueue", url),
        "drain": lambda: ours("drain", url),
        "latency": lambda: ours("latency", url),
    }


def nats_rows(f: dict[str, Figures]) -> list[Row]:
    """As `postgres_rows`."""
    peer, whose = f["taskiq"], "taskiq-nats, stores no results"
    return [
        ("drain", f["drain"]["drain"], whose, peer["drain"], 1, False),
        ("bulk enqueue", f["enqueue"]["bulk"], whose, peer["bulk"], 0, False),
        ("single enqueue", f["enqueue"]["enqueue"], whose, peer["enqueue"], 0, False),
        ("idle latency p50, ms", f["latency"]["latency"]["p50"], whose,
         peer["latency"]["p50"], 1.5, True),
    ]  # fmt: skip


BACKENDS: dict[str, tuple[Callable[[str], Measures], Callable[[dict[str, Figures]], list[Row]]]] = {
    "postgres": (postgres, postgres_rows),
    "redis": (redis, redis_rows),
    "nats": (nats, nats_rows),
}


@contextmanager
def on_cores(apart: bool, server: Server) -> Iterator[None]:
    """Run a server, on a core of its own if it shall be apart from what we measure."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        if apart:
            os.sched_setaffinity(0, cores[:1])
        with server:
            if apart:
                os.sched_setaffinity(0, cores[1:2])
            yield
    finally:
        os.sched_setaffinity(0, cores)


def install(packages: list[str]) -> None:
    """Put peers into their environment."""
    if not PEERS_ENV.exists():
        venv.create(PEERS_ENV, with_pip=True)
    pip = [str(PEERS_ENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *packages], check=True)


def table(rows: list[Row]) -> str:
    """Rows in Markdown."""
    lines = ["| work | omniq_nb | held against | it does | ratio | reached |",
             "|---|---:|---|---:|---:|---|"]  # fmt: skip
    for work, mine, whose, theirs, least, smaller in rows:
        ratio = mine / theirs
        met = ratio <= least if smaller else ratio >= least
        bound = f"{'<=' if smaller else '>='} {least:g}x {'yes' if met else 'NO'}" if least else ""
        lines.append(f"| {work} | {mine:,.3g} | {whose} | {theirs:,.3g} | {ratio:.2f} | {bound} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")] or list(BACKENDS)
    runs = 1 if "--quick" in sys.argv else RUNS
    with tempfile.TemporaryDirectory() as folder:
        for word in words:
            install(PEERS[word])
            measures, rows = BACKENDS[word]
            with Servers(lambda kind: Path(folder, kind)) as servers:
                server = servers.another(word)
                server.settings = SETTINGS[word]
                if isinstance(server, RedisServer):
                    server.password = "benchmark"  # some peers do not decode what a URL encodes
                with on_cores(word == "redis", server):
                    figures = medians(measures(server.url), runs)
            print(f"\n## {word}\n\n{table(rows(figures))}\n\n{figures}")


if __name__ == "__main__":
    main()
