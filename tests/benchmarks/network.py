"""Network backends beside their peers, on servers of their own.

``python -m tests.benchmarks.network [postgres|redis|nats] [--quick]`` writes what it measures into
`docs/benchmarks-network.md`, each backend as a section of its own; words choose backends, none
means all; ``--quick`` takes one round instead of three, and only prints.
"""

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from omniq_nb.testing.servers import Server, Servers
from omniq_nb.testing.servers.redis import RedisServer
from tests.benchmarks.__main__ import PEERS_ENV, ROOT, RUNS, Figures, medians, ours, peer, run
from tests.benchmarks.page import Row, table, taken

PAGE = ROOT / "docs" / "benchmarks-network.md"

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


def postgres(url: str) -> Measures:
    """The peers and we, on PostgreSQL."""
    return {
        "pgqueuer": lambda: peer("pgqueuer_postgres.py", url),
        "dbos": lambda: peer("dbos_postgres.py", url),
        "limits": lambda: peer("postgres_limits.py", url),
        "enqueue": lambda: ours("enqueue", url),
        "drain": lambda: ours("drain", url),
        "latency": lambda: ours("latency", url),
        # Once: it reads three times each, and takes as long as all else together.
        "explore": cache(lambda: run([sys.executable, "-m", "tests.benchmarks.explore", url])),
    }


def postgres_rows(f: dict[str, Figures]) -> list[Row]:
    """Ours beside theirs."""
    drain, peer = f["drain"]["drain"], f["pgqueuer"]
    explore = f["explore"]
    return [
        Row("drain", drain, "/s", "pgqueuer, stores no results", peer["drain"], 0.5),
        Row("drain", drain, "/s", "dbos, stores results", f["dbos"]["drain"], 4),
        Row("drain", drain, "/s", "limit: asyncpg, claim 64 and complete 64",
            f["limits"]["claim_and_complete"], None),
        Row("bulk enqueue", f["enqueue"]["bulk"], "/s", "pgqueuer", peer["bulk"], 0.7),
        Row("single enqueue", f["enqueue"]["enqueue"], "/s", "pgqueuer", peer["enqueue"], None),
        Row("idle latency p50", f["latency"]["latency"]["p50"], "ms", "pgqueuer",
            peer["latency"]["p50"], 1.5, True),
        Row("1M events to a DataFrame", explore["ours"], "s", "bare ADBC", explore["adbc"], 1.5,
            True),
        Row("200,000 results to a DataFrame", explore["results"], "s",
            "bare ADBC, JSON decoded in Python", explore["adbc_decoded"], 1.5, True),
        Row("200,000 results to a DataFrame", explore["results"], "s",
            "bare ADBC, JSON left as text", explore["adbc_results"], None, True),
        Row("of them, 6 columns with arguments and values as columns", explore["typed"], "s",
            "bare ADBC, JSON left as text", explore["adbc_typed"], None, True),
    ]  # fmt: skip


def redis(url: str) -> Measures:
    """The peers and we, on Redis. What is compared is measured one right after the other."""
    theirs = {
        name: lambda script=script: peer(script, url)  # type: ignore[misc]
        for name, script in {
            "dramatiq": "dramatiq_redis.py",
            "arq": "arq_redis.py",
            "limits": "redis_limits.py",
            "streaq": "streaq_redis.py",
            "rq": "rq_redis.py",
            "huey": "huey_redis.py",
            "taskiq": "taskiq_lists.py",
        }.items()
    }
    mine = {
        what: lambda what=what: ours(what, url)  # type: ignore[misc]
        for what in ("drain", "enqueue", "latency")
    }
    every = theirs | mine
    order = ("dramatiq", "arq", "drain", "limits", "streaq", "rq", "enqueue")
    idle = {name: every[name] for name in ("huey", "latency", "taskiq")}
    # These take three turns in each round: the machine becomes faster and slower meanwhile.
    return {name: every[name] for name in order} | {"idle": lambda: medians(idle)}


def redis_rows(f: dict[str, Figures]) -> list[Row]:
    """Ours beside theirs."""
    drain, bulk = f["drain"]["drain"], f["enqueue"]["bulk"]
    idle = {name: figures["latency"]["p50"] for name, figures in f["idle"].items()}
    return [
        Row("drain", drain, "/s", "dramatiq, prefetch 200, stores no results",
            f["dramatiq"]["drain"], 1),
        Row("drain", drain, "/s", "arq, stores results", f["arq"]["drain"], 3),
        Row("drain", drain, "/s", "limit: Lua, complete 64 and claim 64",
            f["limits"]["claim_and_complete"], None),
        Row("bulk enqueue", bulk, "/s", "streaq", f["streaq"]["bulk"], 3),
        Row("bulk enqueue", bulk, "/s", "rq", f["rq"]["bulk"], 3),
        Row("single enqueue", f["enqueue"]["enqueue"], "/s", "dramatiq", f["dramatiq"]["enqueue"],
            None),
        Row("idle latency p50", idle["latency"], "ms", "huey", idle["huey"], 1.5, True),
        Row("idle latency p50", idle["latency"], "ms", "taskiq", idle["taskiq"], 1.5, True),
    ]  # fmt: skip


def nats(url: str) -> Measures:
    """The peer and we, on NATS."""
    return {
        "taskiq": lambda: peer("taskiq_jetstream.py", url),
        "latency": lambda: ours("latency", url),
        "enqueue": lambda: ours("enqueue", url),
        "drain": lambda: ours("drain", url),
    }


def nats_rows(f: dict[str, Figures]) -> list[Row]:
    """Ours beside theirs."""
    peer, whose = f["taskiq"], "taskiq-nats, stores no results"
    return [
        Row("drain", f["drain"]["drain"], "/s", whose, peer["drain"], 1),
        Row("bulk enqueue", f["enqueue"]["bulk"], "/s", whose, peer["bulk"], None),
        Row("single enqueue", f["enqueue"]["enqueue"], "/s", whose, peer["enqueue"], None),
        Row("idle latency p50", f["latency"]["latency"]["p50"], "ms", whose,
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


INTRODUCTION = """# Benchmarks of servers

Written by `python -m tests.benchmarks.network`: for each server one run, in which the peers and we
took turns; medians of three. No-op tasks; our drains store results and events and run until the
queue is empty. The servers sync to the disk as they do by default, and run on the same machine.
Idle latency is from the submission to the start of the task, worker and producer in one process.
"""

NAMES = {"postgres": "PostgreSQL", "redis": "Redis", "nats": "NATS"}

NOTES = {
    "redis": " Server and Python have a core each. Idle latency takes three turns in each round."
}


def section(word: str, figures: dict[str, Figures], load: float) -> str:
    """What the page says of a backend, below its name."""
    rows = BACKENDS[word][1](figures)
    about = f"{taken()} The machine's load was {load:.1f} at the beginning.{NOTES.get(word, '')}"
    return "\n".join(["", about, "", *table(rows)])


def insert(word: str, text: str) -> None:
    """Put a section into the page, in the place of the one before."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    sections[NAMES[word]] = text
    parts = [
        f"## {name}\n\n{sections[name].strip()}\n" for name in NAMES.values() if name in sections
    ]
    PAGE.write_text("\n".join([INTRODUCTION, *parts]), encoding="utf-8")


def main() -> None:
    """Measure, print, and write unless it is quick."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")] or list(BACKENDS)
    quick = "--quick" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        for word in words:
            install(PEERS[word])
            with Servers(lambda kind: Path(folder, kind)) as servers:
                server = servers.another(word)
                server.settings = SETTINGS[word]
                if isinstance(server, RedisServer):
                    server.password = "benchmark"  # some peers do not decode what a URL encodes
                load, _, _ = os.getloadavg()
                with on_cores(word == "redis", server):
                    figures = medians(BACKENDS[word][0](server.url), 1 if quick else RUNS)
            text = section(word, figures, load)
            print(f"## {NAMES[word]}\n{text}\n\n{figures}")
            if not quick:
                insert(word, text)


if __name__ == "__main__":
    main()
