"""A server process: started, awaited, stopped, killed, started again on the same port and data."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

STARTING = 60.0
"""Seconds that a server has until it answers."""

STOPPING = 10.0
"""Seconds that a server has to end in good order."""


def free_port() -> int:
    """Give a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server(ABC):
    """One server. As a context manager it is started, and ends with the block.

    Parameters
    ----------
    folder : path
        For its data and its log; its own.

    Attributes
    ----------
    port : int
        On the loopback address; it stays the same when the server is started again.
    """

    environment: dict[str, str] = {}  # noqa: RUF012  read only
    """More variables for the process."""

    user: int | None = None
    group: int | None = None
    """Who runs it, if not whoever runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, as omniq_nb's configuration takes it."""

    @abstractmethod
    def command(self) -> list[str]:
        """Give the words that start it in the foreground."""

    def prepare(self) -> None:  # noqa: B027  most kinds need nothing
        """Do what must be done once before the first start."""

    def answers(self) -> bool:
        """Whether it serves already. Unless a kind knows better: it accepts connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    # ---------------------------------------------------------------- life

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, again if need be, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self.environment,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + STARTING
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} does not start:\n{self.log()[-3000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order, and whatever it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPPING)
        self.kill()

    def kill(self) -> None:
        """Kill it at once, with whatever it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """Give what it said so far."""
        return (self.folder / "server.log").read_text(errors="replace")


def _die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it is gone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
