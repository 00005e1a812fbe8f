"""Who is still alive: processes by their number and start, workers by process and heartbeat.

And so: which queues nobody serves.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from omniq_nb.models.task import WorkerInfo

SILENCE = 10.0
"""Seconds without a heartbeat after which a worker of this machine counts as dead."""

DOUBT = 3.0
"""Seconds for which a heartbeat proves a worker alive, whatever else is known."""

SKEW = 30.0
"""Seconds that the clock of another machine may be wrong."""


def seen_now(workers: Iterable[WorkerInfo]) -> list[WorkerInfo]:
    """Workers as they described themselves, but for the dead, whose `state` says that.

    Dead is whose process is gone, and who has not been heard of for 10 seconds, or 40 if it is
    on another machine.
    """
    now = time.time()
    seen = []
    for info in workers:
        if info.state != "stopped" and _dead(info, now):
            info.state, info.running = "dead", 0
        seen.append(info)
    return seen


def is_gone(info: WorkerInfo) -> bool:
    """Whether nothing is to be expected of a worker any more."""
    return info.state in ("stopped", "dead")


def unserved(queues: Iterable[str], workers: Iterable[WorkerInfo]) -> tuple[str, ...]:
    """Those of the queues that no worker serves."""
    served = {queue for info in workers if not is_gone(info) for queue in info.queues}
    return tuple(sorted(set(queues) - served))


def unserved_words(queues: Sequence[str]) -> str:
    """Say that no worker serves these queues, and what to call."""
    names = ", ".join(repr(queue) for queue in queues)
    chosen = "" if tuple(queues) == ("default",) else f", queues=[{names}]"
    noun = "queue" if len(queues) == 1 else "queues"
    return f"no worker serves the {noun} {names}: oq.workers.start(2{chosen})"


def is_here(info: WorkerInfo) -> bool:
    """Whether a worker's process is one of this machine."""
    return info.host == socket.gethostname()


def _dead(info: WorkerInfo, now: float) -> bool:
    silent = now - info.heartbeat_at
    if not is_here(info):
        return silent > SILENCE + SKEW
    # Younger news than that may come from another process space that is called the same.
    return silent > SILENCE or (silent > DOUBT and process_start(info.pid) is None)


def this_process() -> str:
    """Say which process this is, in words that no other process of any machine has ever had."""
    return f"{_process_space()}, {process_start(os.getpid())}"


def lives_here(info: WorkerInfo) -> bool | None:
    """Whether the process of a worker lives. None: it is, or was, none that we can see."""
    space, _, start = info.process.rpartition(", ")
    return process_start(info.pid) == start if space == _process_space() else None


@cache
def _process_space() -> str:
    """Where process numbers mean the same: a machine since it was started, or a container."""
    try:
        return f"{_boot()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  no path is meant
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """When that process started, in words that no other process of its number has ever had.

    None: there is none, or it is only waiting to be buried.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _start_elsewhere(pid)
    state, *fields = after_name.split()
    return None if state in "ZX" else f"{_boot()} {fields[18]}"


@cache
def _boot() -> str:
    """Which start of the machine this is: process numbers and times begin anew with each."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _start_elsewhere(pid: int) -> str | None:
    """The same on systems without ``/proc``."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
