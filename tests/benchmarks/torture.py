"""Background workers are killed and frozen at random, and their kernel is killed: what is lost?

``python -m tests.benchmarks.torture [STORE ...] [--tasks N]`` prints what came of each store: of
all of them, unless some are named. Servers are killed once, too, and started again; they are
those of the tests, which keep what they acknowledged. A smaller torture is in the suite:
`tests/core/test_torture.py`.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from omniq_nb import OmniQ, errors
from omniq_nb.core.engine import identity_of
from omniq_nb.core.launch.registry import Entry, Registry
from omniq_nb.core.worker import LEASE
from omniq_nb.testing.servers import Servers

LOCAL, ON_SERVERS = ("sqlite", "file"), ("redis", "postgres", "nats")
WORKERS = 4
BATCH = "torture"

LONGEST = 0.02
"""Seconds that a task takes at most."""

CALM = 0.95
"""The share of tasks done after which there is peace, so that the last leases can be watched."""

FROZEN = LEASE + 2.0
"""Seconds: long enough for other workers to take what a frozen one holds."""

GRACE = 10.0
"""Seconds in which tasks whose leases are over are found, and run."""

PATIENCE = 3600.0
"""Seconds; only a hang ever waits so long."""


def work(i: int) -> int:
    """A task of random length."""
    time.sleep(random.random() * LONGEST)
    return i


def kernel(url: str, tasks: int) -> None:
    """What a notebook does: submit, start workers, wait. Running it again is harmless."""
    with OmniQ(url) as oq:
        batch = oq.map(work, range(tasks), name=BATCH)
        while True:
            # One that is killed before it works is started again in the next turn.
            with contextlib.suppress(errors.WorkerLost):
                oq.workers.start(WORKERS, kind="background")
            with contextlib.suppress(errors.WaitTimeout):
                batch.wait(timeout=1.0)
                return


@dataclass
class Outcome:
    """What came of it.

    Attributes
    ----------
    tasks, kills, freezes, kernels, restarts : int
        How many there were; of workers that were killed and frozen, of killed kernels, and of
        servers that were killed and started again.
    seconds : float
        From the first start of a kernel until all was done.
    peace : float
        Seconds from the last harm until then.
    again : int
        Tasks that were run again because their worker was lost.
    lost : int
        Tasks that did not succeed, or whose value is not theirs.
    twice : int
        Results and successes in the history beyond one for each task.
    stuck : bool
        Whether peace took longer than one lease and what comes after it.
    """

    tasks: int
    kills: int = 0
    freezes: int = 0
    kernels: int = 0
    restarts: int = 0
    seconds: float = 0.0
    peace: float = 0.0
    again: int = 0
    lost: int = 0
    twice: int = 0
    stuck: bool = False


class Tormentor:
    """Kills and freezes workers, and wakes the frozen when their leases are long over."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._frozen: dict[str, tuple[Entry, float]] = {}

    def kill(self) -> bool:
        """Kill one, as the out-of-memory killer does."""
        entry = self._victim()
        return entry is not None and entry.signal(signal.SIGKILL)

    def freeze(self) -> bool:
        """Freeze one, as a closed laptop lid does."""
        entry = self._victim()
        if entry is None or not entry.signal(signal.SIGSTOP):
            return False
        self._frozen[entry.name] = entry, time.monotonic() + FROZEN
        return True

    def wake(self) -> bool:
        """Wake those that were frozen for long enough. Whether others are still frozen."""
        for name, (entry, until) in list(self._frozen.items()):
            if time.monotonic() >= until:
                entry.signal(signal.SIGCONT)
                del self._frozen[name]
        return bool(self._frozen)

    def _victim(self) -> Entry | None:
        """Whoever the lot falls on, unless it is frozen or has not begun yet."""
        living = self._registry.living()
        entry = random.choice(living) if living else None
        return None if entry is None or entry.name in self._frozen or not entry.ready else entry


def torture(
    url: str,
    tasks: int,
    *,
    kill_every: float = inf,
    kills: float = inf,
    freeze_every: float = inf,
    freezes: float = inf,
    restart: Callable[[], None] | None = None,
) -> Outcome:
    """Run many tasks on background workers that do not live long.

    Parameters
    ----------
    url : str
        A fresh place.
    tasks : int
        How many.
    kill_every, freeze_every : float
        Seconds between two of them.
    kills, freezes : int
        The most of each.
    restart : callable, optional
        Kills the server of that place and starts it again; done once, when a quarter is done.
    """
    outcome = Outcome(tasks)
    with OmniQ(url) as oq:
        tormentor = Tormentor(Registry.of(identity_of(oq.config)))
        started = harmed = time.monotonic()
        next_kill, next_freeze = started + kill_every, started + freeze_every
        front = _start_kernel(url, tasks)
        try:
            while (done := _done(oq)) < tasks:
                now = time.monotonic()
                assert now < started + PATIENCE, f"{done} of {tasks} done"
                if restart is not None and done >= tasks * CALM / 4 and not outcome.restarts:
                    restart()
                    outcome.restarts, harmed = 1, time.monotonic()
                if done >= tasks * CALM / 2 and not outcome.kernels:
                    _kill_kernel(front)
                    front = _start_kernel(url, tasks)
                    outcome.kernels, harmed = 1, now
                if done < tasks * CALM:
                    if outcome.kills < kills and now >= next_kill:
                        next_kill = now + kill_every
                        if tormentor.kill():
                            outcome.kills, harmed = outcome.kills + 1, now
                    if outcome.freezes < freezes and now >= next_freeze:
                        next_freeze = now + freeze_every
                        if tormentor.freeze():
                            outcome.freezes, harmed = outcome.freezes + 1, now
                tormentor.wake()
                time.sleep(0.05)
            outcome.seconds = time.monotonic() - started
            outcome.peace = time.monotonic() - harmed
            outcome.stuck = outcome.peace > LEASE + GRACE
            while tormentor.wake():
                time.sleep(0.1)
        finally:
            _kill_kernel(front)
            oq.workers.stop(kind="background", timeout=GRACE)
        _judge(oq, outcome)
    return outcome


def _judge(oq: OmniQ, outcome: Outcome) -> None:
    """What the tables say at the end."""

    def ask(query: str) -> int:
        return int(oq.sql(f"{query} batch = '{BATCH}'")["n"][0])

    outcome.again = ask("select count(*) as n from tasks where attempt > 1 and")
    outcome.lost = outcome.tasks - ask("select count(*) as n from results where value = i and")
    outcome.twice = ask("select count(*) - count(distinct task_id) as n from results where") + ask(
        "select count(*) - count(distinct task_id) as n from events where type = 'succeeded' and"
    )


def _done(oq: OmniQ) -> int:
    states = oq.counts().get("default", {})
    return sum(number for state, number in states.items() if state.final)


def _start_kernel(url: str, tasks: int) -> "subprocess.Popen[bytes]":
    """In a process group of its own, as front ends start kernels."""
    words = [sys.executable, "-m", "tests.benchmarks.torture", "--kernel", url, "--tasks", tasks]
    return subprocess.Popen(list(map(str, words)), start_new_session=True)


def _kill_kernel(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def locally(store: str, folder: Path, tasks: int) -> None:
    """Torture a local store."""
    for torment in ({"kill_every": 0.5}, {"freeze_every": 12.0}):
        place = folder / f"{store}-{'-'.join(torment)}"
        url = f"sqlite:///{place}.db" if store == "sqlite" else f"file://{place}"
        print(store, asdict(torture(url, tasks, **torment)), flush=True)


def on_server(store: str, folder: Path, tasks: int) -> None:
    """Torture a store on a server."""
    with Servers(lambda kind: folder / kind) as servers:
        server = servers(store)
        outcome = torture(server.url, tasks, kill_every=0.5, restart=server.restart)
        print(store, asdict(outcome), flush=True)


def main() -> None:
    """Be a kernel, or print what becomes of the tasks of each store."""
    stores = [*LOCAL, *ON_SERVERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", metavar="STORE", help=", ".join(stores))
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--kernel", metavar="URL")
    words = parser.parse_args()
    if words.kernel:
        kernel(words.kernel, words.tasks)
        return
    unknown = set(words.stores) - set(stores)
    if unknown:
        parser.error(f"no such store: {', '.join(sorted(unknown))}; there are {', '.join(stores)}")
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            os.environ[variable] = folder
        for store in words.stores or stores:
            run = locally if store in LOCAL else on_server
            run(store, Path(folder), words.tasks)


if __name__ == "__main__":
    main()
