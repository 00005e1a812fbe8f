"""Frames: bytes of any size as one message, or as several that are stored as a whole.

Each message begins with five bytes: that it is ours, whether it is the frame's first and last
part, and its number. The parts of a frame have sequence numbers without a gap; the frame has that
of the last. A message that somebody else put there counts as a frame.

A frame that fits into a message, as nearly all do, is published by itself. Others are published
as an atomic batch, which takes the server some 15 ms and stores nothing unless it is complete.

Not here: who reads them (`feed`), and what they mean.
"""

import secrets
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from omniq_nb.errors import StoreError
from omniq_nb.storage.nats import words
from omniq_nb.storage.nats.connection import Answer, Connection
from omniq_nb.storage.nats.streams import Stored, Stream

_HEAD = struct.Struct(">BI")
_FIRST, _LAST, _OURS = 0x01, 0x02, 0xB0

LARGEST = 1024 * 1024
"""Bytes of a message, or fewer if the server allows fewer."""

RESERVED = 1024
"""Of these, for headers."""

MOST = 1000
"""Messages in a batch: the server's limit."""


class Frame(NamedTuple):
    """Bytes that were stored as a whole."""

    first: int
    seq: int
    data: bytes


class Conflict(Exception):
    """Another writer was faster: nothing was stored."""


class _Ack(Answer):
    seq: int = 0


_ack = msgspec.json.Decoder(_Ack).decode


def cut(connection: Connection, data: bytes) -> list[bytes]:
    """Cut bytes into the payloads of messages."""
    size = min(LARGEST, connection.max_payload) - RESERVED
    if len(data) <= size:
        return [_HEAD.pack(_OURS | _FIRST | _LAST, 0) + data]
    count = -(-len(data) // size)
    payloads = []
    for number in range(count):
        flags = (_FIRST if number == 0 else 0) | (_LAST if number == count - 1 else 0)
        part = data[number * size : (number + 1) * size]
        payloads.append(_HEAD.pack(_OURS | flags, number) + part)
    return payloads


def uncut(payload: bytes) -> bytes:
    """Give the part of the bytes that is in this payload."""
    return payload[_HEAD.size :]


async def publish(
    connection: Connection,
    messages: Sequence[tuple[str, bytes]],
    condition: dict[str, str] | None = None,
) -> int:
    """Store messages as a whole, and give the sequence number of the last.

    Parameters
    ----------
    connection : Connection
        Shared.
    messages : sequence of (str, bytes)
        Subject and payload of each. All go to one stream.
    condition : dict, optional
        Headers of the first one, on which all depend.

    Raises
    ------
    Conflict
        The condition does not hold.
    Lost
        Nobody knows whether they were stored.
    """
    if len(messages) > MOST:
        raise StoreError(
            f"{len(messages)} messages are too many to be stored as a whole; {MOST} are allowed. "
            "Store less at a time, or raise max_payload in the server's configuration."
        )
    *others, (subject, payload) = messages
    headers = dict(condition or {})
    if others:
        life = await connection.life()
        batch = secrets.token_hex(16)
        for number, (other, part) in enumerate(others, start=1):
            headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            await life.publish(other, part, headers)
            headers = {}
        headers = {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(len(messages)),
            "Nats-Batch-Commit": "1",
        }
    ack = _ack((await connection.request(subject, payload, headers or None)).data)
    if ack.error is None:
        return ack.seq
    code, said = ack.error.err_code, ack.error.description
    if code in words.WRONG_SEQUENCE:
        raise Conflict
    if words.passes(code, said):
        raise words.Lost(f"{words.where(connection.options)} stored nothing: {said}")
    raise words.refused(connection.options, code, said)


class Assembler:
    """Makes frames of the messages of a stream, in their order."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._first = 0

    def add(self, stored: Stored) -> Frame | None:
        """Give the frame that this message completes.

        What is left of a frame, if parts of it were deleted or were before the first message
        that was read, is dropped.
        """
        if len(stored.data) < _HEAD.size or stored.data[0] & ~(_FIRST | _LAST) != _OURS:
            return Frame(stored.seq, stored.seq, stored.data)
        flags, number = _HEAD.unpack_from(stored.data)
        if flags & _FIRST:
            self._parts, self._first = [], stored.seq
        elif not self._parts or self._first + number != stored.seq:
            self._parts = []
            return None
        self._parts.append(uncut(stored.data))
        if not flags & _LAST:
            return None
        parts, self._parts = self._parts, []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return Frame(self._first, stored.seq, data)


async def starting(stream: Stream, first: int) -> Frame | None:
    """Give the frame whose first message has that number. None: it was deleted."""
    assembler = Assembler()
    seq = first
    while (stored := await stream.message(seq)) is not None:
        frame = assembler.add(stored)
        if frame is not None:
            return frame
        seq += 1
    return None
