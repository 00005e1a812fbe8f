"""One process's view of a log: the folded state, and how commands get into the log.

**Publishing.** Catch up, append what one wants at the next number; if another writer had it,
read its entry, fold it and try the number after. Outcomes are computed when an entry is
applied, by the same fold in every process, so nothing has to be decided again.

**Group commit.** Callers queue their commands, then ask for the replica's lock. Whoever gets it
publishes all that is queued as one entry; the others find their outcome ready. What it takes
until an entry survives a power cut (`StoredLog.confirm`) is done with the replica's lock
released, so that a worker may already claim what is being synced; but only one caller at a time
publishes and confirms facts that must survive. Those who come meanwhile share the next entry,
and so its sync. Nobody is told that a fact is safe before it is.

**Doubt.** A write may succeed and yet look like a failure (a time-out, an interrupt). So a
batch stays the current one until its entry, recognised by its id, was applied or the log gave a
plain error; whoever comes next carries it on. If the log was trimmed past a doubtful entry, it
is published again: every command is harmless when repeated (an id is added once, a token
settles once), the caller then learns at worst that somebody was faster.

Not here: what the commands mean (`queue`, `schedules`), and files (`file_log`).
"""

import asyncio
import logging
import os
import random
import secrets
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from omniq_nb.errors import StoreClosed, StoreError
from omniq_nb.storage.bell import Bell
from omniq_nb.storage.journal.inspection import inspect
from omniq_nb.storage.journal.log import (
    Behind,
    Entry,
    ListeningLog,
    Log,
    PiecewiseLog,
    StoredLog,
    require,
)
from omniq_nb.storage.upkeep import Finding

LOG = logging.getLogger(__name__)

BIG = 64 * 1024
"""Bytes to encode or fold that are worth a thread switch on an event loop."""

QUIET = 10.0
"""Seconds without a new fact after which it is quiet: see `Log.rest`."""

CHECKPOINT_ENTRIES = 1000
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""A checkpoint is due after so much log, or more if the state is large: its cost is shared."""

COMPANY = 3
"""Turns of the event loop that it takes from a ring of the bell to the command of who heard it."""

MOMENT = 0.0005
"""Seconds that who was woken by an entry has to write the next one, before the disk is kept busy
with the first: the file system would make it wait for that."""

T = TypeVar("T")
C = TypeVar("C", bound=msgspec.Struct)


class Fold(ABC, Generic[C]):
    """What a log of commands of type `C` folds into. Deterministic; no clock, no I/O.

    A subclass is called with the bytes that `dump` gave, or with None for an empty state.
    """

    version: ClassVar[int]
    """Of the commands' and the dump's meaning."""

    commands: ClassVar[Any]
    """The type, or union of types, to decode commands as."""

    blobs: Collection[str] = ()
    """The blobs that the state refers to."""

    @abstractmethod
    def __init__(self, dump: bytes | None) -> None: ...

    @abstractmethod
    def apply(self, command: C) -> object:
        """Change the state and give the command's outcome, which may be part of the state."""

    @abstractmethod
    def dump(self) -> bytes:
        """Encode the whole state."""


F = TypeVar("F", bound=Fold[Any])


class _Request:
    """A command on its way, and what came of it."""

    __slots__ = ("body", "command", "done", "durable", "error", "outcome", "take")

    def __init__(
        self, command: object, body: bytes, durable: bool, take: Callable[[Any, Any], object]
    ) -> None:
        self.command = command
        self.body = body
        self.durable = durable
        self.take = take
        self.outcome: object = None
        self.error: Exception | None = None
        self.done = False


class _Batch:
    """The requests of one entry."""

    def __init__(self, entry: Entry, requests: list[_Request]) -> None:
        self.entry = entry
        self.requests = requests
        self.done = False

    def finish(self, error: Exception | None = None) -> None:
        self.done = True
        for request in self.requests:
            request.error = error
            request.done = True


class Replica(Generic[F]):
    """The folded state of a log, shared by all threads and coroutines of a process.

    Parameters
    ----------
    log : Log
        Nothing else in this process may use it.
    fold : type
        What it folds into.

    Attributes
    ----------
    bell : Bell
        Rung when facts were folded, whoever wrote them.
    """

    def __init__(self, log: Log, fold: type[F]) -> None:
        self.log = log
        self.stored = log if isinstance(log, StoredLog) else None
        self._listening = log if isinstance(log, ListeningLog) else None
        self._new_fold = fold
        self._fold: F | None = None
        self._next = 1  # the number of the first entry that is not in `_fold`
        self._open = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[fold.commands]).decode  # type: ignore[name-defined]
        # When the next checkpoint is due.
        self._covered = 0
        self._bytes = 0
        self._dumped = 0
        self._patience = random.uniform(1.0, 2.0)
        self._start_afresh()

    def _check_process(self) -> None:
        """Notice that this is a forked child, before anything of the parent's is touched."""
        if os.getpid() != self._pid:
            self._start_afresh()

    def _start_afresh(self) -> None:
        """Make what a forked child must not share with its parent: locks, and the writer's name."""
        self._pid = os.getpid()
        self.bell = Bell()
        if self._listening:
            self._listening.ring = self.bell.ring
        self._lock = threading.Lock()
        self._async_lock = asyncio.Lock()
        self._waiting: list[_Request] = []
        self._asked_at = self._changed_at = time.monotonic()
        self._batch: _Batch | None = None
        self._nonce = secrets.token_bytes(8)
        self._written = 0
        self._confirming = threading.Lock()
        self._confirmed = 0  # all entries before this number are safe
        if self.stored:
            self._fold = None  # the fork may have come in the middle of an entry

    # ---------------------------------------------------------------- for the stores

    async def open(self) -> None:
        """Open the log and fold it."""

        async def job() -> None:
            await self.log.open()
            self._open = True
            await self._catch_up()

        await self._turn(job, slow=True, opening=True)

    async def close(self) -> None:
        """Wait for what is being published, then release the log."""

        async def job() -> None:
            if self._open:
                self._open = False
                await self.log.close()

        await self._turn(job, slow=False, opening=True)

    def check_open(self) -> None:
        """Refuse use before `open` and after `close`."""
        if not self._open:
            raise StoreClosed("The store is used before open() or after close().")

    async def publish(
        self,
        command: msgspec.Struct,
        durable: bool,
        take: Callable[[Any, F], T],
        slow: bool = False,
        company: bool = False,
    ) -> T:
        """Get a command into the log, apply it, and give its outcome.

        Parameters
        ----------
        command : Struct
            One of the fold's.
        durable : bool
            Whether somebody will rely on it after a power cut.
        take : callable
            Called with the outcome and the state at once, before another command can change it:
            copies what is part of the state. What it gives is what `publish` returns.
        slow : bool
            It is known to be too much for an event loop.
        company : bool
            Others of this loop, who were just woken, may want to come along in the same entry.
        """
        self._check_process()
        body = self._encode(command) if self.stored else b""
        request = _Request(command, body, durable, take)
        slow = slow or len(body) > BIG
        # Queued before the lock is sought: whoever holds it now may take this command along.
        self._waiting.append(request)
        if company:
            for _ in range(COMPANY):
                await asyncio.sleep(0)

        async def job() -> None:
            while not request.done:
                await self._publish_waiting()

        await self._turn(job, slow, safe=durable and self.stored is not None)
        if self._checkpoint_is_due():
            await self._checkpoint()
        if isinstance(request.error, OSError):
            raise StoreError(f"The log could not be written: {request.error}") from request.error
        if request.error is not None:
            raise request.error
        return request.outcome  # type: ignore[return-value]

    async def read(
        self,
        look: Callable[[F], T],
        slow: bool = False,
        enough: Callable[[T], bool] | None = None,
        idle: bool = False,
    ) -> T:
        """Fold what is new, then look at the state: copy what shall outlast the look.

        If what is known without asking the log for news is `enough`, it is not asked; nor if
        whoever asks is `idle`, and it is quiet, and the log was asked not long ago.
        """

        async def job() -> T:
            if idle and self._fold is not None and self._may_rest():
                return look(self._fold)
            if enough is not None:
                fold = await self._known()
                if fold is not None and enough(known := look(fold)):
                    return known
            return look(await self._catch_up())

        return await self._turn(job, slow)

    async def wait(self, due: Callable[[F], float | None], timeout: float) -> None:
        """Return when `due` gives a time that has come, or after `timeout` seconds."""
        if not _on_loop():
            asyncio.run(self.wait(due, timeout))
            return
        started = time.monotonic()
        new = True
        at: float | None = None
        with self.bell.listen() as heard:
            while True:
                if new:
                    heard.clear()
                    at = await self.read(due, enough=self._is_known)
                idle = time.monotonic() - started
                left = min(timeout - idle, timeout if at is None else at - self.now())
                if left <= 0:
                    return
                if self.log.poll:
                    shortest, longest = self.log.poll
                    if self.log.rest:
                        idle = max(idle, time.monotonic() - self._changed_at) * 6
                    left = min(left, max(shortest, min(idle / 16, longest)))
                try:
                    async with asyncio.timeout(left):
                        new = await heard.wait()
                except TimeoutError:
                    new = await self._size_of_next() > 0

    def now(self) -> float:
        """Give the time by which leases are told, in seconds since 1970."""
        return time.time() + self.log.ahead

    async def aside(self, job: Callable[[], Coroutine[None, None, T]], slow: bool) -> T:
        """Do what needs no lock (blobs, tables), off the event loop if it is slow."""
        with _store_errors():
            if slow and self.log.immediate and _on_loop():
                return await asyncio.to_thread(lambda: finish(job()))
            return await job()

    async def compact(self) -> None:
        """Save a checkpoint now, which lets the log be trimmed; nothing if the log is not kept."""
        if self.stored is not None:
            await self._checkpoint(now=True)

    async def inspect(self, repair: bool) -> list[Finding]:
        """Look at every piece of the log; nothing to be found if it has none."""
        log = self.log
        if not isinstance(log, PiecewiseLog):
            return []

        async def job() -> list[Finding]:
            fold = await self._catch_up()
            found = await inspect(log, frozenset(fold.blobs), repair)
            await self._catch_up()
            return found

        return await self._turn(job, slow=True)

    # ---------------------------------------------------------------- one at a time

    async def _turn(
        self,
        job: Callable[[], Coroutine[None, None, T]],
        slow: bool,
        opening: bool = False,
        safe: bool = False,
    ) -> T:
        """Run `job` while nobody else of this process touches the log or the state.

        With `safe`, return when what it published survives a power cut.
        """
        self._check_process()

        async def checked() -> T:
            if not opening:
                self.check_open()
            with _store_errors():
                return await job()

        if not self.log.immediate:
            async with self._async_lock:
                answer = await checked()
            if safe:
                await self._confirm()
            return answer
        if not _on_loop():
            with self._confirming if safe else nullcontext():
                with self._lock:
                    answer = finish(checked())
                    end = self._next
                # If not, a claim took the command along, and it was confirmed with the last one.
                if safe and self._confirmed < end:
                    if self.bell.listened_to:
                        time.sleep(MOMENT)
                    finish(self._confirm())
                    self._confirmed = end
            return answer
        slow = slow or (safe and self.log.slow)
        if not slow and await self._size_of_next() <= BIG and self._lock.acquire(blocking=False):
            try:
                return finish(checked())
            finally:
                self._lock.release()
        # The same, where there is no loop to hold up.
        return await asyncio.to_thread(lambda: finish(self._turn(job, slow, opening, safe)))

    async def _confirm(self) -> None:
        assert self.stored
        with _store_errors():
            await self.stored.confirm()

    async def _size_of_next(self) -> int:
        """How many bytes another process wrote next, as a hint; 0: none."""
        with _store_errors():
            size = await self.log.size(self._next) or 0 if self._open else 0
        if not size:
            self._asked_at = time.monotonic()
        return size

    def _may_rest(self) -> bool:
        now = time.monotonic()
        return now - self._changed_at > QUIET and now - self._asked_at < self.log.rest

    # ---------------------------------------------------------------- with the lock held

    async def _publish_waiting(self) -> None:
        """Publish the batch in doubt, if there is one, or else all that waits."""
        resumed = self._batch is not None
        batch = self._batch or self._gather()
        try:
            if resumed or self._fold is None:
                await self._catch_up()
            while not batch.done:
                try:
                    if await self.log.append(self._next, batch.entry):
                        self._apply(batch.entry, [request.command for request in batch.requests])
                    else:
                        await self._catch_up()
                except Behind:
                    self._fold = None
                    await self._catch_up()
        except Exception as error:
            # If the entry is in the log all the same, it will be folded like a stranger's.
            self._batch = None
            batch.finish(error)

    def _gather(self) -> _Batch:
        """Make all that waits the current batch.

        In this order, so that an interrupt at any point loses no request: at worst one is
        still in `_waiting` when it is done.
        """
        gathered = self._waiting[:]
        requests = [request for request in gathered if not request.done]
        self._written += 1
        entry = Entry(
            self._nonce + self._written.to_bytes(8, "big"),
            self._new_fold.version,
            any(request.durable for request in requests),
            self._encode([msgspec.Raw(request.body) for request in requests])
            if self.stored
            else b"",
        )
        self._batch = batch = _Batch(entry, requests)
        del self._waiting[: len(gathered)]
        return batch

    def _is_known(self, at: float | None) -> bool:
        """Whether it need not be asked when something is due: it is, or news come by themselves."""
        return self._listening is not None or (at is not None and at <= self.now())

    async def _known(self) -> F | None:
        """Fold what was heard of, and give the state, if it is known at all."""
        if self._fold is not None and self._listening:
            try:
                await self._listening.listen()
                self._apply_all(self._listening.heard(self._next))
            except Behind:
                self._fold = None
        return self._fold

    async def _catch_up(self) -> F:
        """Fold what was written since the last time, from a checkpoint on if need be."""
        while True:
            try:
                if self._fold is None:
                    await self._load()
                entries = await self.log.read(self._next)
            except Behind:
                self._fold = None
                continue
            self._apply_all(entries)
            self._asked_at = time.monotonic()
            assert self._fold is not None
            return self._fold

    def _apply_all(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            require(self._new_fold.version, entry)
            self._apply(entry, self._decode(entry.body))

    async def _load(self) -> None:
        if self.stored is None:
            self._fold = self._new_fold(None)
            return
        number, checkpoint = await self.stored.load()
        if checkpoint is not None:
            require(self._new_fold.version, checkpoint)
        self._fold = self._new_fold(checkpoint.body if checkpoint else None)
        self._next = number + 1
        self._covered = number
        self._dumped = len(checkpoint.body) if checkpoint else 0
        self._bytes = 0

    def _apply(self, entry: Entry, commands: Sequence[object]) -> None:
        """Fold one entry; if it is this process's current batch, deliver the outcomes."""
        fold = self._fold
        assert fold is not None
        batch = self._batch
        mine = batch is not None and batch.entry.id == entry.id
        with _uninterrupted():
            try:
                for place, command in enumerate(commands):
                    outcome = fold.apply(command)
                    if mine and batch is not None:
                        request = batch.requests[place]
                        request.outcome = request.take(outcome, fold)
            except BaseException:
                if self.stored:
                    self._fold = None  # half an entry is applied: fold again from the log
                raise
            self._next += 1
            self._bytes += len(entry.body)
            if mine and batch is not None:
                self._batch = None
                batch.finish()
        if entry.durable:
            self._changed_at = time.monotonic()
        if entry.durable or not mine:
            self.bell.ring()

    # ---------------------------------------------------------------- checkpoints

    def _checkpoint_is_due(self) -> bool:
        if self.stored is None:
            return False
        entries = (CHECKPOINT_ENTRIES + self._dumped // 10_000) / self.stored.dear * self._patience
        return (
            self._next - 1 - self._covered > entries
            or self._bytes > max(CHECKPOINT_BYTES, self._dumped) * self._patience
        )

    async def _checkpoint(self, now: bool = False) -> None:
        """Save one, unless somebody just did, or `now`."""
        stored = self.stored
        assert stored is not None

        async def job() -> tuple[int, Entry, Collection[str]] | None:
            newest = await stored.newest_checkpoint()
            if newest > self._covered:
                self._covered, self._bytes = newest, 0
            fold = await self._catch_up()
            if not (now or self._checkpoint_is_due()):
                return None
            dump = fold.dump()
            # Unequal patience, so that not all processes come to this point at once.
            self._patience = random.uniform(1.0, 2.0)
            self._covered, self._bytes, self._dumped = self._next - 1, 0, len(dump)
            checkpoint = Entry(secrets.token_bytes(16), fold.version, True, dump)
            return self._covered, checkpoint, frozenset(fold.blobs)

        try:
            taken = await self._turn(job, slow=True)
            if taken is not None:
                number, checkpoint, blobs = taken

                async def save() -> None:
                    await stored.save(number, checkpoint)
                    await stored.sweep_blobs(blobs)

                await self.aside(save, slow=True)
        except StoreError as error:
            # What was published is safe: the log is only longer than it need be.
            LOG.warning("No checkpoint could be saved: %s", error)


def finish(work: Coroutine[None, None, T]) -> T:
    """Give the result of a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise RuntimeError(f"{work} belongs to an immediate log, but waited for something")


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The log could not be read or written: {error}") from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C for the moment in which state is changed: memory has no second copy."""
    may_come = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if may_come else None
    if not callable(handler):
        yield
        return
    late: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: late.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if late:
            handler(*late[0])
