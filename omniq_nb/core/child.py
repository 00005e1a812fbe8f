"""The main program of a process executor's child: ``python -m omniq_nb.core.child [PERMITS]``.

Parent and child speak in frames of msgpack (`omniq_nb.core.pipes`) over the child's first stdin
and stdout; PERMITS is the descriptor that it reads `omniq_nb.core.permits` from. The child moves
those pipes out of the way before any task runs: what a task, C code or a subprocess prints goes
to the file behind stderr, which the parent reads even when the child is dead.

Not here: the parent's side (`omniq_nb.core.executors.process`).
"""

import faulthandler
import io
import os
import signal
import sys
import threading
import time
from queue import SimpleQueue
from types import FrameType
from typing import IO, NamedTuple

import msgspec

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Shelf
from omniq_nb.core import permits
from omniq_nb.core.context import REASONS, Progress
from omniq_nb.core.pipes import AT_ONCE, receive, send
from omniq_nb.core.run import Attempt, Coroutines, Outcome
from omniq_nb.errors import PayloadError, TaskCancelled
from omniq_nb.models.task import Task

GRACE = 2.0
"""Seconds between asking a process to end and killing it."""

AT_HAND = 64 << 20
"""Bytes of bundles that a child keeps for tasks to come."""

PROGRESS_EVERY = 0.05
"""Seconds between two progress reports that are sent."""

NOBODY = Task(id="", name="")
"""In the place of the task in an outcome: the parent has it."""


class Hello(msgspec.Struct, kw_only=True):
    """The first frame to a child. The key travels here, where no other process sees it."""

    key: bytes
    strict: bool
    allow: tuple[str, ...]
    prefer: str
    path: list[str]
    cwd: str | None


class Wanted(msgspec.Struct, tag=True):
    """A child's question for a bundle."""

    name: str


class Delivery(NamedTuple):
    """The answer: the bundle, or why there is none."""

    name: str
    payload: bytes
    error: str


class Ended(msgspec.Struct, tag=True):
    """An attempt's outcome, and where in the file of all output its own has ended."""

    outcome: Outcome
    printed: int


class Child:
    """One process that makes attempts until its parent hangs up.

    Parameters
    ----------
    requests, replies : binary file
        From and to the parent.
    log : int
        Where tasks print to.
    permits : int or None
        Where it says which task to start. None: all that come.
    """

    def __init__(
        self, requests: IO[bytes], replies: IO[bytes], log: int, permits: int | None
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._log = log
        self._permits = permits
        self._inbox: SimpleQueue[Task | None] = SimpleQueue()
        self._number = 0
        self._delivered: SimpleQueue[Delivery] = SimpleQueue()
        self._at_hand: Shelf[bytes] = Shelf(AT_HAND)
        self._attempt: Attempt | None = None
        self._sending = threading.Lock()
        self._next_progress = 0.0

    def main(self) -> None:
        """Make attempts, one after the other, in the main thread."""
        hello = msgspec.msgpack.decode(receive(self._requests), type=Hello)
        sys.path[:] = hello.path
        if hello.cwd is not None:
            os.chdir(hello.cwd)
        codec = Codec(hello.key, strict=hello.strict, allow=hello.allow)
        signal.signal(signal.SIGTERM, self._on_terminate)
        threading.Thread(target=self._read, name="omniq requests", daemon=True).start()
        send(self._replies, b"")
        with Coroutines() as coroutines:
            while (task := self._next()) is not None:
                self._next_progress = 0.0
                self._attempt = Attempt(task, codec, hello.prefer, self._report, self._fetch)
                outcome = self._attempt.run(coroutines)
                self._attempt = None
                outcome.task = NOBODY
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                # Before the next permit is read: what is under way when this process dies is
                # the one task that was started and has no outcome.
                self._send(Ended(outcome, os.lseek(self._log, 0, os.SEEK_CUR)))

    def _next(self) -> Task | None:
        """Wait for the next task that may be started. None: the parent is gone."""
        permitted = self._number + 1 if self._permits is None else permits.wait(self._permits)
        task = None
        while permitted is not None and self._number < permitted:
            self._number += 1
            task = self._inbox.get()
            if task is None:
                break
        return task

    def _read(self) -> None:
        """Receive tasks; when the parent is gone, let nothing survive it."""
        decoder = msgspec.msgpack.Decoder(Task | Delivery)
        try:
            while True:
                request = decoder.decode(receive(self._requests))
                if isinstance(request, Task):
                    self._inbox.put(request)
                else:
                    self._delivered.put(request)
        except EOFError:
            pass
        finally:  # also if the parent cannot be understood
            self._inbox.put(None)
            if self._attempt is None:
                time.sleep(GRACE)  # for the main thread to end in good order
            _die()

    def _on_terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """End the attempt by an exception in the main thread, so that it can clean up."""
        attempt = self._attempt
        if attempt is None:
            _die()
            return
        attempt.stop("cancelled")  # which cancels a coroutine
        if attempt.interrupt is None:
            raise TaskCancelled(REASONS["cancelled"])

    def _fetch(self, name: str) -> bytes:
        """Ask the parent for a bundle, and wait for it."""
        payload = self._at_hand.get(name)
        if payload is None:
            self._send(Wanted(name))
            delivery = self._delivered.get()
            if delivery.error:
                raise PayloadError(delivery.error)
            payload = delivery.payload
            self._at_hand.put(name, payload, len(payload))
        return payload

    def _report(self, progress: Progress) -> None:
        # A frame costs as much as a thousand calls: a bar that moves 20 times a second will do.
        now = time.monotonic()
        if now >= self._next_progress or progress.done == progress.total:
            self._next_progress = now + PROGRESS_EVERY
            progress.task = Task(id=progress.task.id, name=progress.task.name)
            self._send(progress)

    def _send(self, reply: Ended | Progress | Wanted) -> None:
        frame = msgspec.msgpack.encode(reply)
        with self._sending:
            send(self._replies, frame)


def _die() -> None:
    """End this process, and on POSIX what it started: it leads its own process group."""
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _moved_pipes() -> tuple[IO[bytes], IO[bytes], int]:
    """Stdin, stdout and stderr as they were; tasks read nothing, and print to stderr only."""
    requests = os.fdopen(os.dup(0), "rb", AT_ONCE)
    replies = os.fdopen(os.dup(1), "wb", AT_ONCE)
    log = os.dup(2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    faulthandler.enable()
    return requests, replies, log


def _inherited_permits() -> int | None:
    if not sys.argv[1:]:
        return None
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    return descriptor


if __name__ == "__main__":
    Child(*_moved_pipes(), _inherited_permits()).main()
