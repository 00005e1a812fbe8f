"""What a log must do, and how its entries look as bytes.

A log is a sequence of entries, numbered from 1 without gaps. An entry is written by *exclusive
create* of the next number, so of several writers exactly one wins it, and everybody reads the
same entries in the same order. Now and then somebody saves a checkpoint, the folded state after
entry number n; entries that no reader can need any more are then trimmed.

Not here: what entries mean (`replica`, and the folds in `queue` and `schedules`).
"""

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Sequence
from typing import ClassVar

import msgspec

from omniq_nb.errors import StoreError, StoreVersionError


class Behind(Exception):
    """The log cannot vouch for that number any more: it was trimmed. Start from a checkpoint."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is written under one number. A checkpoint is sealed in the same way.

    Attributes
    ----------
    id : bytes
        16 bytes that no other entry has: how a writer knows its own entry again when it could
        not see whether the write succeeded.
    version : int
        Of the commands or the state in `body`.
    durable : bool
        It holds facts that somebody will be told of (an add, a settle), so it and everything
        before it must survive a power cut. Claims and heartbeats need not.
    body : bytes
        For the fold to decode.
    doubtful : int, optional
        How many entries just before it a power cut might still have torn when it was written, as
        far as its writer knew. None: not said.
    """

    id: bytes
    version: int
    durable: bool
    body: bytes
    doubtful: int | None = None


_HEADER = struct.Struct("<4sBBBB16sI")
_MAGIC = b"omnJ"
_FORMAT = 1


def seal(entry: Entry) -> bytes:
    """Make an entry into bytes that `unseal` recognises, or recognises as damaged."""
    checksum = zlib.crc32(entry.body, zlib.crc32(entry.id))
    flags = int(entry.durable)
    doubt = 0 if entry.doubtful is None or entry.doubtful > 254 else entry.doubtful + 1
    header = _HEADER.pack(_MAGIC, _FORMAT, entry.version, flags, doubt, entry.id, checksum)
    return header + entry.body


def unseal(data: bytes) -> Entry | None:
    """Give the entry, or None if these bytes are torn or are not ours.

    Raises
    ------
    StoreVersionError
        A newer omniq_nb wrote them.
    """
    if len(data) < _HEADER.size:
        return None
    magic, form, version, flags, doubt, id, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    if form > _FORMAT:
        raise StoreVersionError(
            f"The log's format is {form}; this omniq_nb knows up to {_FORMAT}. Upgrade omniq_nb."
        )
    body = data[_HEADER.size :]
    if zlib.crc32(body, zlib.crc32(id)) != checksum:
        return None
    return Entry(id, version, bool(flags), body, doubt - 1 if doubt else None)


TORN = Entry(bytes(16), 0, False, b"\x90")
"""What a torn entry counts as: an empty list of commands."""


class Log(ABC):
    """A sequence of entries. Only one caller at a time uses it: the replica holds its lock.

    Attributes
    ----------
    immediate : bool
        Its coroutines never suspend: they may be driven without an event loop.
    slow : bool
        To confirm an entry takes long enough to bother an event loop. If not, an append by an
        immediate log is as safe as it gets.
    poll : tuple of float, or None
        The shortest and the longest pause, in seconds, between two looks for an entry of
        another process. None: there is no other process, or its entries are heard of.
    rest : float
        Where each look costs money: seconds for which, once nothing has happened for a while,
        what is known will do for workers and schedules that have nothing to do.
    ahead : float
        Seconds by which the store's clock is ahead of this machine's: 0 unless one of them is
        plainly wrong.
    """

    immediate: ClassVar[bool]
    slow: bool
    poll: tuple[float, float] | None
    rest: float = 0.0
    ahead: float = 0.0

    @abstractmethod
    async def open(self) -> None:
        """Create what is missing, and prove that exclusive creation works here."""

    @abstractmethod
    async def close(self) -> None:
        """Release files and connections. It may be opened again."""

    @abstractmethod
    async def size(self, number: int) -> int | None:
        """Bytes of that entry, more than 0 also if `read` would raise; None: nothing new.

        Cheap, and safe without the replica's lock.
        """

    @abstractmethod
    async def read(self, number: int) -> Sequence[Entry]:
        """All entries from that number on, possibly none. A torn entry counts as an empty one.

        Raises
        ------
        Behind
            Entries from that number on were trimmed.
        """

    @abstractmethod
    async def append(self, number: int, entry: Entry) -> bool:
        """Write an entry under that number, the first that `read` did not give.

        False: another entry has it. When it raises, the entry may or may not have been written.

        Raises
        ------
        Behind
            Entries from that number on were trimmed: nobody will read what was written.
        """


class StoredLog(Log):
    """A log that outlives the process: with checkpoints, and with blobs beside it.

    A log that is not stored has one replica, whose state is the only truth.
    The methods about blobs and `confirm` are safe without the replica's lock.

    Attributes
    ----------
    dear : int
        How many times as dear as in a folder it is to read an entry: so many times as often a
        checkpoint spares it to whoever opens the log.
    """

    dear: ClassVar[int] = 1

    @abstractmethod
    async def confirm(self) -> None:
        """Return when the durable entries that were appended before this call are safe.

        From then on they survive a power cut. Whoever appends one may do all of that at once.
        """

    @abstractmethod
    async def load(self) -> tuple[int, Entry | None]:
        """Give the newest checkpoint and the number up to which it holds; (0, None): none yet."""

    @abstractmethod
    async def newest_checkpoint(self) -> int:
        """Tell up to which number the newest checkpoint holds, whoever saved it."""

    @abstractmethod
    async def save(self, number: int, checkpoint: Entry) -> None:
        """Keep a checkpoint of the state after that entry; trim what only laggards could need.

        A reader that is not more than one checkpoint behind must still find its entries.
        """

    @abstractmethod
    async def put_blob(self, name: str, parts: Sequence[bytes]) -> None:
        """Keep bytes beside the log, durably, under a name of letters and digits.

        The same bytes may be put again, also while somebody reads them: their age begins anew.
        """

    @abstractmethod
    async def get_blob(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Parts of a blob, each given by offset and length. None: it was deleted."""

    @abstractmethod
    async def delete_blobs(self, names: Iterable[str]) -> None:
        """Delete blobs, as far as possible: `sweep_blobs` finds what is left."""

    @abstractmethod
    async def sweep_blobs(self, keep: Container[str]) -> None:
        """Delete blobs that are not in `keep` and older than a day: their writer died."""


class PiecewiseLog(StoredLog):
    """A log whose pieces can be listed, for a deep check."""

    @abstractmethod
    async def entries(self) -> list[int]:
        """List the numbers of all entries that are there."""

    @abstractmethod
    async def checkpoints(self) -> list[int]:
        """List the numbers of all checkpoints that are there."""

    @abstractmethod
    async def is_whole(self, checkpoint: int) -> bool:
        """Whether that checkpoint can be read, or is gone by now."""

    @abstractmethod
    async def blobs(self) -> dict[str, bool]:
        """List the blobs, and whether one that no task needs was abandoned."""

    @abstractmethod
    async def delete_entries(self, numbers: Sequence[int]) -> None:
        """Delete entries that no reader can need. Missing ones are fine."""


class ListeningLog(StoredLog):
    """A log that is told of new entries as they are written, and so need not look for them.

    Attributes
    ----------
    ring : callable
        To be called, on the event loop, when something was heard, or may not be heard any more.
        The replica sets it.
    """

    ring: Callable[[], None]

    @abstractmethod
    async def listen(self) -> None:
        """Hear of entries behind those that were read, if that is not so already."""

    @abstractmethod
    def heard(self, number: int) -> Sequence[Entry]:
        """Entries from that number on, as far as they are known without asking.

        Raises
        ------
        Behind
            What was heard does not follow on the entry before.
        """


def require(known: int, entry: Entry) -> None:
    """Refuse an entry that this release would misunderstand."""
    if entry.version > known:
        raise StoreVersionError(
            f"A newer omniq_nb wrote to this store (version {entry.version} of its commands, "
            f"this one knows up to {known}). Upgrade omniq_nb."
        )


def unreadable(what: str) -> StoreError:
    """Make the error for data that exists but cannot be understood."""
    return StoreError(f"{what} is damaged and cannot be read. Restore it from a backup.")
