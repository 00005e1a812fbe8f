"""A log as a stream: an entry is a frame that is stored only behind the entry before it.

::

    PREFIX-queue     PREFIX.queue                       the entries of the tasks' log
    PREFIX-objects   PREFIX.objects.queue.checkpoint    what the two newest checkpoints cover,
                     PREFIX.objects.queue.state         and their states
                     PREFIX.objects.queue.blob.NAME.N   big payloads, cut into parts

**Exclusive creation.** Every publish names the sequence number that must be the stream's last
(`Nats-Expected-Last-Sequence`): the server refuses it if somebody was faster.

**Numbers.** Entries are counted from 1. A large entry takes several sequence numbers of the
stream, so the two differ; a checkpoint names both, and from there everybody counts alike.

**Doubt.** If no answer comes, the log says that somebody else has the number: the replica then
reads on, behind everything that the server has done by then, and finds its own entry or none.
A copy that arrives later still expects the same last sequence, and comes to nothing.

**Trimming.** What the older of the two newest checkpoints covers is purged. The stream's first
sequence number then tells a reader that it is `Behind`.

**Lost ends.** A server that is not told to sync always may forget its newest entries when its
machine dies. After every new connection the newest entry that we know is compared with the
stream's: if it is not there, the state is read again from a checkpoint.

Not here: folding and retrying (`omniq_nb.storage.journal.replica`).
"""

import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.storage.journal.log import (
    TORN,
    Behind,
    Entry,
    ListeningLog,
    seal,
    unreadable,
    unseal,
)
from omniq_nb.storage.nats import frames
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.feed import Feed
from omniq_nb.storage.nats.frames import Conflict, Frame
from omniq_nb.storage.nats.objects import Objects
from omniq_nb.storage.nats.streams import Stream
from omniq_nb.storage.nats.words import Lost

HEARD = 16 * 1024 * 1024
"""Bytes of entries of others that are kept for a replica that does not read."""

_WITH_ID = 64
"""Bytes at the beginning of an entry's message that its id is among."""

DOUBTS = 5
"""Appends of one entry without an answer, while questions are answered, until that is an error."""

_COVERED = struct.Struct(">QQ")
"""Number and sequence number of the newest entry that a checkpoint covers."""


class _Place(NamedTuple):
    """What a checkpoint covers, and where that is written."""

    at: int
    number: int
    seq: int


class NatsLog(ListeningLog):
    """See the module.

    Parameters
    ----------
    connection : Connection
        Shared.
    what : str
        What it is the log of: part of the streams' names.
    """

    immediate = False
    slow = False
    poll = None

    def __init__(self, connection: Connection, what: str) -> None:
        self._connection = connection
        self._stream = Stream(connection, what)
        self._beside = Stream(connection, "objects", (">",))
        self._checkpoints = f"{self._beside.subject}.{what}.checkpoint"
        self._states = f"{self._beside.subject}.{what}.state"
        self._blobs = Objects(self._beside, f"{self._beside.subject}.{what}.blob")
        self._feed = Feed(self._stream, self._hear, deaf=lambda: self.ring())
        self._heard: deque[Frame] = deque()
        self._heard_bytes = 0
        self._place_at(0, 0)

    def _place_at(self, number: int, seq: int) -> None:
        """Say up to where the replica knows the log."""
        self._number = number
        self._seq = seq
        self._newest: tuple[int, bytes] | None = None  # where the newest entry begins; its id
        self._generation = self._connection.generation
        # Sequence numbers by number, but only where the difference of the two changes.
        self._numbers = [number]
        self._seqs = [seq]
        self._doubts = 0
        self._heard.clear()
        self._heard_bytes = 0
        self._feed.begin(seq)

    # ---------------------------------------------------------------- the log

    async def open(self) -> None:
        """Make the streams."""
        await self._connection.open(self)
        try:
            await self._stream.ensure()
            await self._beside.ensure()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening."""
        await self._feed.stop()
        await self._connection.close(self)

    async def size(self, number: int) -> int | None:
        """Tell what was heard."""
        return self._heard_bytes or None

    async def read(self, number: int) -> Sequence[Entry]:
        """Ask for the last number, and wait until it was heard."""
        await self._compare_after_break()
        self._check(number)
        state = await self._stream.state()
        if state.last_seq < self._seq or state.first_seq > self._seq + 1:
            raise Behind
        await self._feed.reach(state.last_seq)
        await self._feed.listen()
        try:
            return self.heard(number)
        except Behind:
            if (await self._stream.state()).first_seq > self._seq + 1:
                raise
            raise StoreError(
                f"The stream {self._stream.name!r} lacks messages in its midst: somebody deleted "
                "them. Nobody but omniq_nb may delete there."
            ) from None

    async def append(self, number: int, entry: Entry) -> bool:
        """Publish behind the last one."""
        await self._compare_after_break()
        self._check(number)
        payloads = frames.cut(self._connection, seal(entry))
        condition = {"Nats-Expected-Last-Sequence": str(self._seq)}
        try:
            seq = await frames.publish(
                self._connection, [(self._stream.subject, part) for part in payloads], condition
            )
        except Conflict:
            return False
        except Lost as error:
            self._doubts += 1
            if self._doubts > DOUBTS:
                self._doubts = 0
                raise StoreUnavailable(str(error)) from error
            return False  # the replica reads on, and sees whether it is there
        self._note(entry, seq - len(payloads) + 1, seq)
        return True

    async def listen(self) -> None:
        """Let entries come by themselves."""
        await self._compare_after_break()
        await self._feed.listen()

    def heard(self, number: int) -> Sequence[Entry]:
        """Give what came, without what the replica published itself."""
        self._check(number)
        entries = []
        while self._heard:
            frame = self._heard.popleft()
            self._heard_bytes -= len(frame.data)
            if frame.seq <= self._seq:
                continue
            if frame.first != self._seq + 1:
                raise Behind
            entry = unseal(frame.data) or TORN
            self._note(entry, frame.first, frame.seq)
            entries.append(entry)
        return entries

    async def confirm(self) -> None:
        """Nothing is left to do: the server syncs before it answers, or does not promise to."""

    # ---------------------------------------------------------------- checkpoints

    async def load(self) -> tuple[int, Entry | None]:
        """Give the newest one."""
        while True:
            place = await self._newest_place()
            if place is None:
                self._place_at(0, 0)
                return 0, None
            frame = await frames.starting(self._beside, place.at + 1)
            if frame is not None:
                break  # or else it was replaced while it was read
        checkpoint = unseal(frame.data)
        if checkpoint is None:
            raise unreadable(f"The newest checkpoint in the stream {self._beside.name!r}")
        if (await self._stream.state()).last_seq < place.seq:
            # The server forgot the end of the log, but not this checkpoint: it goes on from here.
            await self._stream.purge(below=place.seq + 1)
        self._place_at(place.number, place.seq)
        return place.number, checkpoint

    async def newest_checkpoint(self) -> int:
        """Look at what it covers."""
        place = await self._newest_place()
        return 0 if place is None else place.number

    async def save(self, number: int, checkpoint: Entry) -> None:
        """Store it behind the one before it, then trim what that one covers."""
        known = bisect_right(self._numbers, number) - 1
        before = await self._newest_place()
        if known < 0 or (before is not None and before.number >= number):
            return  # somebody saved a newer one
        seq = self._seqs[known] + number - self._numbers[known]
        parts = frames.cut(self._connection, seal(checkpoint))
        messages = [(self._checkpoints, _COVERED.pack(number, seq))]
        messages += [(self._states, part) for part in parts]
        expected = 0 if before is None else before.at
        condition = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            await frames.publish(self._connection, messages, condition)
        except Conflict:
            return
        del self._numbers[:known], self._seqs[:known]
        if before is not None:
            await self._stream.purge(below=before.seq + 1)
            await self._beside.purge(self._checkpoints, below=before.at)
            await self._beside.purge(self._states, below=before.at)

    # ---------------------------------------------------------------- blobs

    async def put_blob(self, name: str, parts: Sequence[bytes]) -> None:
        """See `Objects`."""
        await self._blobs.put(name, b"".join(parts))

    async def get_blob(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Read the parts that are asked for."""
        return await self._blobs.get(name, spans)

    async def delete_blobs(self, names: Iterable[str]) -> None:
        """Delete each; without the server, `sweep_blobs` finds them later."""
        for name in names:
            with suppress(StoreError):
                await self._blobs.delete(name)

    async def sweep_blobs(self, keep: Container[str]) -> None:
        """See `Objects`."""
        await self._blobs.sweep(keep)

    # ---------------------------------------------------------------- inside

    def _hear(self, frame: Frame) -> None:
        self._heard.append(frame)
        self._heard_bytes += len(frame.data)
        if self._heard_bytes > HEARD:
            self._feed.pause()
        if frame.seq > self._seq:
            self.ring()

    def _check(self, number: int) -> None:
        """See whether the replica is where we think; if folding failed, it is not."""
        if number != self._number + 1:
            raise Behind

    def _note(self, entry: Entry, first: int, seq: int) -> None:
        """Say that the replica knows one entry more."""
        self._number += 1
        if seq != self._seq + 1:
            self._numbers.append(self._number)
            self._seqs.append(seq)
        self._seq = seq
        self._newest = first, entry.id
        self._doubts = 0

    async def _newest_place(self) -> _Place | None:
        stored = await self._beside.last(self._checkpoints)
        return None if stored is None else _Place(stored.seq, *_COVERED.unpack(stored.data))

    async def _compare_after_break(self) -> None:
        """See "Lost ends"."""
        await self._connection.life()
        generation = self._connection.generation
        if generation == self._generation:
            return
        if self._newest is not None:
            first, id = self._newest
            stored = await self._stream.message(first)
            if stored is None:
                state = await self._stream.state()
                if state.first_seq <= first:
                    raise Behind
            elif id not in stored.data[:_WITH_ID]:
                raise Behind
        self._generation = generation
