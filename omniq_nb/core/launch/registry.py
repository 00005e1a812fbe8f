"""Which background workers there are: one small file for each, in the user's state folder.

A process is known by its number and its start, so that another one that got the same number
later is never taken for it, and never sent a signal.

Not here: starting and stopping them (`omniq_nb.core.launch.background`).
"""

import contextlib
import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from platformdirs import user_state_path

from omniq_nb.core.launch.base import WorkerOrder
from omniq_nb.liveness import is_here, process_start
from omniq_nb.models.task import WorkerInfo

KEPT = 7 * 86400.0
"""Seconds for which the log of a worker that is gone is kept."""


class Entry(msgspec.Struct, kw_only=True):
    """One worker, as its file describes it. The file's time is that of its last heartbeat.

    Attributes
    ----------
    name : str
        The file's name without ``.json``; the log's without ``.log``.
    process : str
        When its process started, in the words of `process_start`.
    order : WorkerOrder
        What it was asked to do.
    info : WorkerInfo
        As the worker describes itself; without an id as long as it is starting.
    """

    name: str
    process: str
    order: WorkerOrder
    info: WorkerInfo

    @property
    def ready(self) -> bool:
        """Whether it claims tasks."""
        return bool(self.info.id)

    @property
    def alive(self) -> bool:
        """Whether its very process is there."""
        return process_start(self.info.pid) == self.process

    def signal(self, number: signal.Signals) -> bool:
        """Send its process a signal. False: it is gone."""
        pid = self.info.pid
        with contextlib.suppress(ProcessLookupError):
            if not hasattr(os, "pidfd_open"):
                if self.alive:
                    os.kill(pid, number)
                    return True
                return False
            # What the descriptor means cannot become another process any more.
            process = os.pidfd_open(pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(process, number)
                    return True
            finally:
                os.close(process)
        return False


class Registry:
    """The workers of one configuration on this machine.

    Parameters
    ----------
    folder : Path
        Theirs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, identity: str) -> "Registry":
        """Where the workers of a configuration are registered, by its `Engine.identity`."""
        return cls(user_state_path("omniq_nb") / "workers" / identity)

    def entries(self) -> list[Entry]:
        """All of this machine, dead ones too, oldest first."""
        found = []
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                entry = msgspec.json.decode(file.read_bytes(), type=Entry)
                # The folder may be on a disk that several machines share.
                if is_here(entry.info):
                    found.append(entry)
        return found

    def living(self) -> list[Entry]:
        """Those whose process is there."""
        return [entry for entry in self.entries() if entry.alive]

    def read(self, name: str) -> Entry | None:
        """One of them. None: it is not registered, or not any more."""
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode(self._file(name).read_bytes(), type=Entry)
        return None

    def add(self, entry: Entry) -> None:
        """Register it, unless it was faster and did so itself."""
        temporary = self._written(entry)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self._file(entry.name))
        temporary.unlink()

    def write(self, entry: Entry) -> None:
        """Describe it anew. A reader sees the old or the new description."""
        self._written(entry).replace(self._file(entry.name))

    def beat(self, entry: Entry) -> None:
        """Say that it lives."""
        try:
            os.utime(self._file(entry.name))
        except FileNotFoundError:
            self.write(entry)

    def remove(self, name: str) -> None:
        """Forget it. Its log stays for a while."""
        self._file(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Where it writes to."""
        return self.folder / f"{name}.log"

    def sweep(self) -> None:
        """Forget those that are dead, and delete what they wrote long ago."""
        for entry in self.entries():
            if not entry.alive:
                self.remove(entry.name)
        living = {entry.name for entry in self.entries()}
        for file in self.folder.glob("*.log*"):
            with contextlib.suppress(FileNotFoundError):
                old = file.stat().st_mtime < time.time() - KEPT
                if old and file.name.partition(".")[0] not in living:
                    file.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else launch workers of this configuration meanwhile."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _written(self, entry: Entry) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(entry))
        return Path(temporary)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
