"""Attempts in child processes: all cores for Python code, and an end that is really one.

Not here: the child's side (`omniq_nb.core.child`).
"""

import codecs
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

import msgspec

import omniq_nb
from omniq_nb.codec import Codec
from omniq_nb.core.capture import LIMIT, LOOK_LIMIT, Look, shortened
from omniq_nb.core.child import GRACE, Delivery, Hello, Wanted, receive, send
from omniq_nb.core.context import Progress
from omniq_nb.core.executors.slots import SlotExecutor
from omniq_nb.core.run import Attempt, Outcome, describe
from omniq_nb.errors import OmniQError, TaskCancelled, WorkerLost
from omniq_nb.models.task import State

HOME = Path(omniq_nb.__file__).parent.parent
"""From where a child finds this very package, before it is told the parent's path."""

_REQUESTS = msgspec.msgpack.Encoder()
_REPLIES = msgspec.msgpack.Decoder(Outcome | Progress | Wanted)


class ProcessExecutor(SlotExecutor):
    """Runs each attempt in a child process, one child for each slot.

    Children are started afresh, never forked, and never run the user's main module. To cancel
    is to terminate, after two seconds to kill; a new child takes the place. A child that dies
    costs the attempt that it was at. When this process ends, however it ends, so do they.
    """

    kind: ClassVar[str] = "process"
    kills: ClassVar[bool] = True
    advice: ClassVar[str] = ""
    reuses: ClassVar[bool] = True
    """Whether a child makes more than one attempt."""

    @contextmanager
    def _slot(self) -> Iterator["_ProcessSlot"]:
        slot = _ProcessSlot(self._codec, self._prefer, self.reuses)
        try:
            yield slot
        finally:
            slot.close()


class ProcessPerTaskExecutor(ProcessExecutor):
    """Runs each attempt in a child process of its own, which ends with it.

    Nothing that an attempt leaves behind reaches the next one: memory, changed modules, open
    files, environment. A start of Python for each task is the price.
    """

    kind: ClassVar[str] = "process-per-task"
    reuses: ClassVar[bool] = False


class _ProcessSlot:
    """A place for a child, and the child that is in it at the time."""

    def __init__(self, codec: Codec, prefer: str, reuses: bool) -> None:
        self._codec = codec
        self._prefer = prefer
        self._reuses = reuses
        self._used = False
        self._child: _Child | None = None
        self._trouble = ""

    def prepare(self) -> None:
        """See to it that there is a living child, so that no attempt pays for its start."""
        if self._child is not None and (self._child.spent or (self._used and not self._reuses)):
            self.close()
        if self._child is None:
            try:
                self._child = _Child(self._hello())
                self._used = False
            except OSError as error:
                self._trouble = describe(error)

    def run(self, attempt: Attempt) -> Outcome:
        """Have the child make the attempt."""
        if self._child is None:
            return attempt.fail(WorkerLost(f"no process could be started: {self._trouble}"))
        self._used = True
        return self._child.run(attempt)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _hello(self) -> bytes:
        hello = Hello(
            key=self._codec.key,
            strict=self._codec.strict,
            allow=tuple(self._codec.allow),
            prefer=self._prefer,
            path=list(sys.path),
            cwd=str(Path.cwd()),
        )
        return msgspec.msgpack.encode(hello)


class _Child:
    """A child process and the pipes to it. `spent` says that it is of no more use."""

    def __init__(self, hello: bytes) -> None:
        # Bytes that a dead process has written can still be read from a file, and it never
        # makes a writer wait. The offset is shared, so rewinding here rewinds the child too.
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by `close`
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omniq_nb.core.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=HOME,
                # Out of reach of Ctrl-C and of a notebook's interrupt, which are for us.
                start_new_session=True,
            )
        except OSError:
            self._log.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        self._lock = threading.Lock()
        self._attempt: Attempt | None = None
        self._killer: threading.Timer | None = None
        self._broken = False
        # If it cannot start, the first attempt will say why.
        with contextlib.suppress(OSError, EOFError):
            send(self._requests, hello)
            receive(self._replies)

    @property
    def spent(self) -> bool:
        return self._broken or self._process.poll() is not None

    def run(self, attempt: Attempt) -> Outcome:
        """Send the task and wait for its outcome, or for the child's death."""
        with self._lock:
            self._attempt = attempt
        attempt.interrupt = functools.partial(self._terminate, attempt)
        attempt.printed = functools.partial(self._printed, attempt)
        try:
            if attempt.reason is not None:
                return attempt.fail(TaskCancelled())  # asked a moment too early to be interrupted
            outcome = self._converse(attempt)
            if outcome.to is State.CANCELLED and attempt.reason is None:
                self._broken = True
                outcome = attempt.fail(WorkerLost("the process was told to end (SIGTERM)"))
        except (OSError, EOFError):
            outcome = self._lost(attempt)
        finally:
            # From here on the attempt cannot terminate the child, which may be at the next one.
            with self._lock:
                self._attempt = None
        outcome.output = self._output()
        return outcome

    def close(self) -> None:
        """End it: in good order if it is idle and well, else with all that it started."""
        if self._broken:
            self._kill()
        for stream in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        if self._killer is not None:
            self._killer.cancel()
        self._log.close()

    def _converse(self, attempt: Attempt) -> Outcome:
        send(self._requests, _REQUESTS.encode(attempt.task))
        while True:
            reply = _REPLIES.decode(receive(self._replies))
            if isinstance(reply, Wanted):
                send(self._requests, _REQUESTS.encode(_delivery(attempt, reply.name)))
                continue
            reply.task = attempt.task
            if isinstance(reply, Outcome):
                return reply
            if not attempt.over:
                attempt.report(reply)

    def _lost(self, attempt: Attempt) -> Outcome:
        self._broken = True
        self._kill()
        ending = _ending(self._process.wait())
        if attempt.reason is not None:
            return attempt.fail(TaskCancelled())
        return attempt.fail(WorkerLost(f"the process ended with {ending}"))

    def _terminate(self, attempt: Attempt) -> None:
        """Ask the child to end, if it is still at that attempt; soon it will have to."""
        with self._lock:
            if self._attempt is attempt:
                self._broken = True
                self._process.terminate()
                self._killer = threading.Timer(GRACE, self._kill)
                self._killer.daemon = True
                self._killer.start()

    def _kill(self) -> None:
        """Kill it, and on POSIX what it started. Only before `wait`: its number is ours yet."""
        if self._process.returncode is not None:
            return
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _printed(self, attempt: Attempt, position: int) -> Look:
        """Read what is in the file beyond that many bytes, if the child is still at it."""
        with self._lock:
            # Without pread the child's own offset would move: no live output on Windows.
            if self._attempt is not attempt or not hasattr(os, "pread"):
                return Look("", 0, position)
            file = self._log.fileno()
            begin = max(position, os.fstat(file).st_size - LOOK_LIMIT)
            data = os.pread(file, LOOK_LIMIT, begin)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        # The rest of a character comes with the next look.
        return Look(text, begin - position, begin + len(data) - len(decoder.getstate()[0]))

    def _output(self) -> str | None:
        """Read and forget what was printed since the last attempt."""
        size = os.fstat(self._log.fileno()).st_size
        if not size:
            return None
        self._log.seek(0)
        if size <= LIMIT:
            head, tail, cut = self._log.read(size), b"", 0
        else:
            head = self._log.read(LIMIT // 2)
            self._log.seek(size - LIMIT // 2)
            tail, cut = self._log.read(LIMIT // 2), size - LIMIT
        self._log.seek(0)
        self._log.truncate()
        return shortened(head.decode("utf-8", "replace"), tail.decode("utf-8", "replace"), cut)


def _delivery(attempt: Attempt, name: str) -> Delivery:
    try:
        return Delivery(name, attempt.fetch(name), "")
    except OmniQError as error:
        return Delivery(name, b"", str(error))


def _ending(code: int) -> str:
    """Say an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"signal {-code} ({name}{hint})"
