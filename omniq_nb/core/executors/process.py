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
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, ClassVar

import msgspec

import omniq_nb
from omniq_nb.codec import Codec
from omniq_nb.core.capture import LIMIT, LOOK_LIMIT, Look, shortened
from omniq_nb.core.child import GRACE, Delivery, Ended, Hello, Wanted
from omniq_nb.core.context import Progress
from omniq_nb.core.executors.slots import Given, Slot, SlotExecutor
from omniq_nb.core.permits import CAN_RECALL, Permits
from omniq_nb.core.pipes import AT_ONCE, Receiver, send
from omniq_nb.core.run import Attempt, Outcome, describe
from omniq_nb.errors import OmniQError, TaskCancelled, WorkerLost
from omniq_nb.models.task import State, Task

HOME = Path(omniq_nb.__file__).parent.parent
"""From where a child finds this very package, before it is told the parent's path."""

AHEAD = 0.005
"""Seconds that what is sent ahead may take, to judge by the tasks before."""

UNKNOWN = 1.0
"""Seconds that a task is thought to take in a child that has made no attempt yet."""

MOST = 128
"""The most tasks that are ahead in one child."""

MOST_BYTES = 1 << 15
"""The most bytes ahead: a pipe holds them, so that nobody waits who sends them."""

MOMENT = 0.0005
"""Seconds for which the outcomes of tasks that take less gather in the pipe: to be woken for each
takes longer than such a task."""

MOST_PRINTED = 1 << 20
"""Bytes of output that are kept at most before nothing is sent ahead, and they are forgotten."""

PATIENCE = 0.02
"""Seconds that a child may be at one task before what is ahead goes to whoever is free."""

Reply = Ended | Progress | Wanted

_REQUESTS = msgspec.msgpack.Encoder()
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


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

    def _slot(self) -> "_ProcessSlot":
        return _ProcessSlot(self._codec, self._prefer, self.reuses, self._lock, self._put_back)


class ProcessPerTaskExecutor(ProcessExecutor):
    """Runs each attempt in a child process of its own, which ends with it.

    Nothing that an attempt leaves behind reaches the next one: memory, changed modules, open
    files, environment. A start of Python for each task is the price.
    """

    kind: ClassVar[str] = "process-per-task"
    reuses: ClassVar[bool] = False


class _ProcessSlot(Slot):
    """A place for a child, and the child that is in it at the time.

    Short tasks are sent ahead, while the child is at another one: to wait for each other takes
    both sides longer than such a task. What is ahead can be taken back as long as the child has
    not read its permit, and is if the child is at one task for a while.

    Parameters
    ----------
    codec, prefer
        As for the executor.
    reuses : bool
        Whether a child makes more than one attempt.
    lock : Lock
        The executor's, which guards `attempt` and `ahead`.
    put_back : callable
        Queues tasks again. The lock is held while it is called.
    """

    def __init__(
        self,
        codec: Codec,
        prefer: str,
        reuses: bool,
        lock: threading.Lock,
        put_back: Callable[[Sequence[Task]], None],
    ) -> None:
        super().__init__()
        self._codec = codec
        self._prefer = prefer
        self._reuses = reuses
        self._lock = lock
        self._put_back = put_back
        self._child: _Child | None = None
        self._trouble = ""
        self._used = False
        self._seconds = UNKNOWN
        self._number = 0
        self._unsent: list[Task] = []
        self._early: Reply | None = None  # what the child said of the attempt to come

    def __exit__(self, *_: object) -> None:
        self._close()

    def prepare(self) -> None:
        """See to it that there is a living child, so that no attempt pays for its start."""
        if self._child is not None and (self._child.spent() or (self._used and not self._reuses)):
            self._take_back()
            if not self.ahead:  # else it has begun with that one, or even died of it
                self._close()
        if self._child is None:
            try:
                self._child = _Child(self._hello())
                self._used = False
                self._seconds = UNKNOWN
                self._number = 0
                self._unsent = []
                self._early = None
            except OSError as error:
                self._trouble = describe(error)

    def _close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def next(self, queued: OrderedDict[str, Task], share: int) -> Given | None:
        """Take a task, and some ahead; permit the child to start them, in order."""
        child = self._child
        if child is None:
            return super().next(queued, share)
        if room := self._room(child, share):
            self._take(child, queued, room)
        if not self.ahead:
            return None
        given = self.ahead.popleft()
        self._number = given.number
        return given

    def _take(self, child: "_Child", queued: OrderedDict[str, Task], room: int) -> None:
        taken: list[Given] = []
        size = sum(_size(given.task) for given in self.ahead)
        while queued and len(taken) < room:
            task = next(iter(queued.values()))
            size += _size(task)
            if size > MOST_BYTES and (taken or self.ahead):
                break
            del queued[task.id]
            taken.append(Given(task, child.number()))
        child.permit(*(given.number for given in taken))
        self.ahead += taken
        self._unsent += [given.task for given in taken]

    def _room(self, child: "_Child", share: int) -> int:
        """How many tasks to take now."""
        if child.broken:
            return 0
        most = 0
        if CAN_RECALL and self._reuses and child.printed < MOST_PRINTED:
            most = int(min(MOST, AHEAD / self._seconds))
        if len(self.ahead) > most // 2:
            return 0  # the more at once the better
        return max(min(1 + most - len(self.ahead), share), 0 if self.ahead else 1)

    def recall(self) -> list[Task]:
        """Take the permits back that the child has not read."""
        if self._child is None or not self.ahead:
            return []
        numbers = self._child.recall()
        if self._number in numbers:  # soon it will come for this one
            self._child.permit(self._number)
        tasks = [given.task for given in self.ahead if given.number in numbers]
        self.ahead = deque(given for given in self.ahead if given.number not in numbers)
        return tasks

    def abandon(self) -> list[Task]:
        """Take back all; the child is of no more use if it is at one of them."""
        tasks = self.recall() + [given.task for given in self.ahead]
        if self.ahead and self._child is not None:
            self._child.broken = True
        self.ahead.clear()
        return tasks

    def run(self, attempt: Attempt) -> Outcome:
        """Have the child make the attempt."""
        child = self._child
        if child is None:
            return attempt.fail(WorkerLost(f"no process could be started: {self._trouble}"))
        self._used = True
        attempt.interrupt = functools.partial(self._interrupt, attempt)
        attempt.printed = functools.partial(self._printed, attempt)
        if attempt.reason is not None:
            self._interrupt(attempt)  # asked a moment too early to be interrupted
        end = None
        try:
            outcome, end = self._converse(attempt, child)
            self._learn(outcome)
            if outcome.to is State.CANCELLED and attempt.reason is None:
                child.broken = True
                outcome = attempt.fail(WorkerLost("the process was told to end (SIGTERM)"))
        except (OSError, EOFError):
            outcome = self._lost(attempt, child)
        finally:
            # From here on the attempt cannot terminate the child, which may be at the next one.
            with self._lock:
                self.attempt = None
        # Only with nothing ahead is all that was printed surely this attempt's.
        outcome.output = child.output(end if self.ahead else None)
        return outcome

    def _converse(self, attempt: Attempt, child: "_Child") -> tuple[Outcome, int]:
        """Send what is to be sent, and answer the child until the attempt is over."""
        tasks, self._unsent = self._unsent, []
        # A child that is dead has perhaps told of this attempt's end before.
        with contextlib.suppress(OSError):
            if tasks:
                child.send(*tasks)
        patience = time.monotonic() + PATIENCE
        while True:
            reply = self._heard(child, patience)
            if isinstance(reply, Wanted):
                child.send(_delivery(attempt, reply.name))
            elif isinstance(reply, Ended):
                reply.outcome.task = attempt.task
                return reply.outcome, reply.printed
            elif reply.task.id == attempt.task.id and not attempt.over:
                reply.task = attempt.task
                attempt.report(reply)

    def _heard(self, child: "_Child", patience: float) -> Reply:
        """Wait for what the child says next. After some time nothing is ahead of it any more."""
        if self._early is not None:
            reply, self._early = self._early, None
            return reply
        if self.ahead and not child.replies.pending:
            if self._seconds < MOMENT:
                time.sleep(MOMENT)
            if not child.replies.wait(patience - time.monotonic()):
                self._take_back()
        return _REPLIES.decode(child.replies.receive())

    def over(self) -> list[Outcome]:
        """Give the outcomes of what was ahead that are heard of already."""
        child = self._child
        if child is None or self._early is not None:
            return []
        ends: list[Ended] = []
        while child.replies.whole:
            reply = _REPLIES.decode(child.replies.receive())
            # Anything but an end in good order is for the attempt to deal with.
            if not isinstance(reply, Ended) or reply.outcome.to is State.CANCELLED:
                self._early = reply
                break
            ends.append(reply)
        with self._lock:
            # Fewer, if they were abandoned meanwhile.
            given = [self.ahead.popleft() for _ in range(min(len(ends), len(self.ahead)))]
        outcomes = []
        for number, (one, end) in enumerate(zip(given, ends, strict=False), 1):
            outcome = end.outcome
            outcome.task = one.task
            idle = number == len(given) and not self.ahead
            outcome.output = child.output(None if idle else end.printed)
            self._learn(outcome)
            outcomes.append(outcome)
        return outcomes

    def _learn(self, outcome: Outcome) -> None:
        """How long an attempt takes: a long one counts at once, a short one slowly."""
        self._seconds = max(outcome.finished_at - outcome.started_at, self._seconds / 2, 1e-6)

    def _lost(self, attempt: Attempt, child: "_Child") -> Outcome:
        ending = child.end()
        with self._lock:
            # Had it started one of them, this attempt's outcome would have come before.
            self._put_back([given.task for given in self.ahead])
            self.ahead.clear()
        if attempt.reason is not None:
            return attempt.fail(TaskCancelled())
        return attempt.fail(WorkerLost(f"the process ended with {ending}"))

    def _take_back(self) -> None:
        with self._lock:
            self._put_back(self.recall())

    def _interrupt(self, attempt: Attempt) -> None:
        """Ask the child to end, if it is still at that attempt; soon it will have to."""
        with self._lock:
            self._put_back(self.recall())
            # Else it has gone on to the next one, and this attempt's outcome is on its way.
            if self.attempt is attempt and not self.ahead and self._child is not None:
                self._child.terminate()

    def _printed(self, attempt: Attempt, position: int) -> Look:
        """Give what it printed beyond that many bytes, if the child is surely still at it."""
        with self._lock:
            if self.attempt is not attempt or self.ahead or self._child is None:
                return Look("", 0, position)
            return self._child.look(position)

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
    """A child process and the pipes to it.

    Attributes
    ----------
    replies : Receiver
        What it says.
    broken : bool
        Whether it is of no more use.
    printed : int
        How much its attempts have printed that is still in the file.
    """

    def __init__(self, hello: bytes) -> None:
        self.broken = False
        self.printed = 0
        self._sent = 0
        self._killer: threading.Timer | None = None
        # Bytes that a dead process has written can still be read from a file, and it never
        # makes a writer wait. The offset is shared, so rewinding here rewinds the child too.
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by `close`
        self._permits = Permits() if CAN_RECALL else None
        inherited = () if self._permits is None else (self._permits.descriptor,)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omniq_nb.core.child", *map(str, inherited)],
                bufsize=AT_ONCE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=HOME,
                pass_fds=inherited,
                # Out of reach of Ctrl-C and of a notebook's interrupt, which are for us.
                start_new_session=True,
            )
        except OSError:
            if self._permits is not None:
                self._permits.close()
            self._log.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        self.replies = Receiver(self._replies.fileno())
        # If it cannot start, the first attempt will say why.
        with contextlib.suppress(OSError, EOFError):
            send(self._requests, hello)
            self.replies.receive()

    def spent(self) -> bool:
        """Whether it is of no more use, or dead."""
        # There is time to ask the system when all that it said is heard.
        if not self.broken and not self.replies.pending:
            self.broken = self._process.poll() is not None
        return self.broken

    def send(self, *requests: Task | Delivery) -> None:
        """Send tasks, in the order of their permits, or what it wanted."""
        send(self._requests, *map(_REQUESTS.encode, requests))

    def number(self) -> int:
        """Count one more task that it is sent."""
        self._sent += 1
        return self._sent

    def permit(self, *numbers: int) -> None:
        """Permit the start of these tasks."""
        if self._permits is not None:
            self._permits.give(*numbers)

    def recall(self) -> set[int]:
        """Permit nothing. Gives the numbers of what was permitted and is not started."""
        return set() if self._permits is None else self._permits.recall()

    def close(self) -> None:
        """End it: in good order if it is idle and well, else with all that it started."""
        if self.broken:
            self._kill()
        if self._permits is not None:
            self._permits.close()
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

    def end(self) -> str:
        """End it at once. Says in words how it ended."""
        self.broken = True
        self._kill()
        return _ending(self._process.wait())

    def terminate(self) -> None:
        """Ask it to end; soon it will have to."""
        self.broken = True
        if self._killer is None:
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

    def look(self, position: int) -> Look:
        """Give what was printed beyond that many bytes since the last attempt."""
        # Without pread the child's own offset would move: no live output on Windows.
        if not hasattr(os, "pread"):
            return Look("", 0, position)
        size = os.fstat(self._log.fileno()).st_size - self.printed
        begin = max(position, size - LOOK_LIMIT)
        data = os.pread(self._log.fileno(), LOOK_LIMIT, self.printed + begin)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        # The rest of a character comes with the next look.
        return Look(text, begin - position, begin + len(data) - len(decoder.getstate()[0]))

    def output(self, end: int | None) -> str | None:
        """Read what was printed since the last attempt.

        Parameters
        ----------
        end : int or None
            Where in the file it ends. None: it is all, and is forgotten.
        """
        begin = self.printed
        size = (os.fstat(self._log.fileno()).st_size if end is None else end) - begin
        text = self._text(begin, size) if size > 0 else None
        self.printed = begin + max(0, size)
        if end is None and self.printed:
            self._log.seek(0)
            self._log.truncate()
            self.printed = 0
        return text

    def _text(self, begin: int, size: int) -> str:
        if size <= LIMIT:
            head, tail, cut = self._read(begin, size), b"", 0
        else:
            head, tail = (
                self._read(start, LIMIT // 2) for start in (begin, begin + size - LIMIT // 2)
            )
            cut = size - LIMIT
        return shortened(head.decode("utf-8", "replace"), tail.decode("utf-8", "replace"), cut)

    def _read(self, begin: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._log.fileno(), size, begin)
        self._log.seek(begin)  # and it is rewound soon: nothing is ahead
        return self._log.read(size)


def _size(task: Task) -> int:
    """About the length of its frame."""
    return len(task.call) + len(task.arguments) + len(task.metadata)


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
