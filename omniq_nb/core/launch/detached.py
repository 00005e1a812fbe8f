"""The main program of a background worker: ``python -m omniq_nb.core.launch.detached``.

It reads its errand from standard input, serves, keeps its log short and its entry in the
registry fresh. When it has reached a limit, a fresh Python takes over the same process. When a
sibling has died, another one is launched in its place.

Not here: what serving is (`omniq_nb.core.launch.serve`).
"""

import logging
import os
import sys
import time
from pathlib import Path

import msgspec

from omniq_nb.config import OmniQConfig
from omniq_nb.core.executors.process import HOME
from omniq_nb.core.launch.background import BackgroundLauncher, Errand, holding, launch
from omniq_nb.core.launch.registry import Entry, Registry
from omniq_nb.core.launch.serve import Ending, Service, serve
from omniq_nb.errors import OmniQError
from omniq_nb.liveness import process_start
from omniq_nb.models.task import WorkerInfo

LOG_LIMIT = 10 << 20
"""Bytes of a log file; then it becomes ``.log.1``, and a new one begins."""

LOOK = 1.0
"""Seconds between two looks at the siblings and at the log."""

log = logging.getLogger("omniq_nb.launch")


class DetachedService(Service):
    """A service that tends its entry in the registry, its log, and its siblings.

    Parameters
    ----------
    errand : Errand
        What it was told.
    """

    def __init__(self, errand: Errand) -> None:
        self._registry = Registry(Path(errand.folder))
        self._errand = errand
        self._entry: Entry | None = None
        self._next_look = 0.0
        super().__init__(
            OmniQConfig.from_dict(errand.config),
            errand.order,
            BackgroundLauncher.kind,
            str(self._registry.log(errand.name)),
            self._tend,
        )

    def stop(self) -> None:
        """Finish what runs and end, and say so in the registry."""
        if self._entry is not None and self._entry.info.state != "draining":
            self._entry.info.state = "draining"
            self._registry.write(self._entry)
        super().stop()

    def _tend(self, info: WorkerInfo) -> None:
        if self._entry is None:
            process = process_start(os.getpid()) or ""
            self._entry = Entry(
                name=self._errand.name,
                process=process,
                order=self._errand.order,
                info=msgspec.structs.replace(info),
            )
            self._registry.write(self._entry)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK
            self._registry.beat(self._entry)
            rotate(self._registry.log(self._errand.name), LOG_LIMIT)
            self._replace_the_dead()

    def _replace_the_dead(self) -> None:
        if all(entry.alive for entry in self._registry.entries()):
            return
        with self._registry.locked():
            for entry in self._registry.entries():
                if entry.alive:
                    continue
                self._registry.remove(entry.name)
                # One that dies before it can work would die again.
                if entry.ready and entry.info.state != "draining":
                    log.warning("worker %s died: another takes its place", entry.info.id)
                    launch(msgspec.structs.replace(self._errand, order=entry.order))


def rotate(path: Path, limit: int) -> None:
    """Begin a new log file if standard output, which is the old one, is too long."""
    if os.fstat(1).st_size <= limit:
        return
    path.replace(path.with_suffix(".log.1"))
    fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(fresh, 1)
    os.dup2(fresh, 2)
    os.close(fresh)


def main() -> None:
    """Be a background worker."""
    errand = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Errand)
    _take_as_input(os.open(os.devnull, os.O_RDONLY))
    sys.path[:] = errand.path
    if errand.cwd:
        os.chdir(errand.cwd)
    # Arrow's own allocator takes fresh pages for each batch of results, and to have them zeroed
    # is a tenth of what short tasks cost.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    try:
        ending = serve(DetachedService(errand))
    except OmniQError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if ending is Ending.SPENT:
        _begin_anew(errand)
    Registry(Path(errand.folder)).remove(errand.name)


def _begin_anew(errand: Errand) -> None:
    """Become a fresh Python with the same errand, process number and log."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _take_as_input(holding(msgspec.msgpack.encode(errand)))
    os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _take_as_input(descriptor: int) -> None:
    os.dup2(descriptor, 0)
    os.close(descriptor)


if __name__ == "__main__":
    main()
