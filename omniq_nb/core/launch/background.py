"""Background workers: detached processes that outlive the kernel that had them launched.

Each is a session of its own, out of reach of what a restart does to the kernel's process
group, and writes to a log file. What it must know comes through its standard input, from a
file without a name: nothing secret stands in the process list or on a disk.

Not here: the detached process's side (`omniq_nb.core.launch.detached`).
"""

import asyncio
import contextlib
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from omniq_nb.core.engine import Engine
from omniq_nb.core.executors.process import HOME
from omniq_nb.core.launch.base import Launcher, WorkerOrder, check_shared, refuse_options
from omniq_nb.core.launch.registry import Entry, Registry
from omniq_nb.errors import WorkerLost
from omniq_nb.liveness import process_start
from omniq_nb.models.task import WorkerInfo

STARTING = 60.0
"""Seconds that a worker has until it claims tasks."""

RELEASING = 10.0
"""Seconds that a worker has to give back what it runs, before it is killed."""

LAST_WORDS = 2000
"""Characters of a log that an error quotes."""

PAUSE = 0.02
"""Seconds between two looks at the registry."""


class Errand(msgspec.Struct, kw_only=True):
    """All that a detached worker is told. It holds secrets, and is never shown.

    Attributes
    ----------
    name : str
        Under which it is registered.
    folder : str
        The registry's.
    config : dict
        As `OmniQConfig.to_dict` has it.
    order : WorkerOrder
        What to do.
    path : list of str
        ``sys.path``, so that it finds the modules that the submitting process finds.
    cwd : str
        Where it works: where relative places of the configuration are. Empty: anywhere.
    """

    name: str
    folder: str
    config: dict[str, Any]
    order: WorkerOrder
    path: list[str]
    cwd: str

    def __repr__(self) -> str:
        return f"<Errand {self.name}>"


class BackgroundLauncher(Launcher):
    """Launches detached processes on this machine.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    options : mapping
        There are none.
    """

    kind: ClassVar[str] = "background"

    def __init__(self, engine: Engine, options: Mapping[str, object]) -> None:
        refuse_options(self.kind, options)
        self._config = engine.config
        self._folder = engine.folder
        self._registry = Registry.of(engine.identity)

    async def find(self) -> list[tuple[WorkerOrder, WorkerInfo]]:
        """See `Launcher`."""
        return [(entry.order, entry.info) for entry in self._registry.living() if entry.ready]

    async def scale(self, order: WorkerOrder, n: int) -> list[WorkerInfo]:
        """See `Launcher`."""
        check_shared(self._config, self.kind)
        names = await asyncio.to_thread(self._adjust, order, n)
        return [info for name in names if (info := await self._ready(name)) is not None]

    async def stop(self, timeout: float | None) -> None:
        """See `Launcher`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        there: dict[str, Entry] = {}

        def left() -> list[Entry]:
            there.update((entry.name, entry) for entry in self._registry.living())
            return [entry for entry in there.values() if entry.alive]

        while (living := left()) and time.monotonic() < deadline:
            for entry in living:
                self._dismiss(entry)
            await asyncio.sleep(PAUSE)
        for entry in living:
            self._dismiss(entry)
            entry.signal(signal.SIGTERM)  # the second one: give back what runs
        deadline = time.monotonic() + RELEASING
        while (living := left()) and time.monotonic() < deadline:
            await asyncio.sleep(PAUSE)
        for entry in living:
            self._registry.remove(entry.name)
            entry.signal(signal.SIGKILL)  # what it started ends when it notices
        while any(entry.alive for entry in living):
            await asyncio.sleep(PAUSE)
        self._registry.sweep()

    async def close(self) -> None:
        """Nothing is held: the workers are on their own."""

    def _adjust(self, order: WorkerOrder, n: int) -> list[str]:
        """Launch what is missing and dismiss what is too much. The names of the `n` workers."""
        with self._registry.locked():
            self._registry.sweep()
            kept: list[str] = []
            dismissed: list[Entry] = []
            for entry in self._registry.entries():
                if entry.order == order and entry.info.state != "draining" and len(kept) < n:
                    kept.append(entry.name)
                elif entry.order.queues == order.queues:
                    dismissed.append(entry)
            while len(kept) < n:
                kept.append(launch(self._errand(order)).name)
        for entry in dismissed:
            self._dismiss(entry)
        return kept

    def _dismiss(self, entry: Entry) -> None:
        """Ask it to finish what it runs and to end. Only once: twice means at once."""
        if entry.info.state != "draining":
            entry.info.state = "draining"
            self._registry.write(entry)
            entry.signal(signal.SIGTERM)

    async def _ready(self, name: str) -> WorkerInfo | None:
        """Wait until it claims tasks. None: it has done so, and has ended since."""
        deadline = time.monotonic() + STARTING
        while (entry := self._registry.read(name)) is not None and not entry.ready:
            if not entry.alive or time.monotonic() > deadline:
                entry.signal(signal.SIGKILL)
                self._registry.remove(name)
                raise WorkerLost(
                    f"a background worker could not start. Its log, {self._registry.log(name)}, "
                    f"ends with:\n{self._last_words(name)}"
                )
            await asyncio.sleep(PAUSE)
        return None if entry is None else entry.info

    def _last_words(self, name: str) -> str:
        return self._registry.log(name).read_text(errors="replace")[-LAST_WORDS:].strip()

    def _errand(self, order: WorkerOrder) -> Errand:
        return Errand(
            name="",
            folder=str(self._registry.folder),
            config=self._config.to_dict(),
            order=order,
            path=list(sys.path),
            cwd=self._folder,
        )


def launch(errand: Errand) -> Entry:
    """Start a detached worker with this errand, under a new name, and register it."""
    registry = Registry(Path(errand.folder))
    errand.name = f"{int(time.time() * 1000):011x}-{secrets.token_hex(3)}"
    output = os.open(registry.log(errand.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    knowledge = holding(msgspec.msgpack.encode(errand))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "omniq_nb.core.launch.detached"],
            stdin=knowledge,
            stdout=output,
            stderr=output,
            cwd=HOME,
            start_new_session=True,
        )
    finally:
        os.close(knowledge)
        os.close(output)
    # It is our child as long as we live, and would else stay a zombie until then.
    threading.Thread(target=process.wait, name="omniq burial", daemon=True).start()
    order = errand.order
    entry = Entry(
        name=errand.name,
        process=process_start(process.pid) or "",
        order=order,
        info=WorkerInfo(
            id="",
            kind=BackgroundLauncher.kind,
            queues=order.queues,
            concurrency=order.concurrency,
            host=socket.gethostname(),
            pid=process.pid,
            started_at=time.time(),
            log=str(registry.log(errand.name)),
        ),
    )
    registry.add(entry)
    return entry


def holding(data: bytes) -> int:
    """A descriptor from which a process that inherits it can read these bytes, and nobody else."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("omniq")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with contextlib.closing(os.fdopen(os.dup(descriptor), "wb")) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
