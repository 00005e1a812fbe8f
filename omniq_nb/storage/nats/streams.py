"""A stream: made when it is missing, checked when it is there, and what is asked of it.

Streams carry the version of their layout as metadata. One that somebody made beforehand, because
we may not, carries none, and counts as of our version.

Not here: how what we store is cut into messages (`frames`).
"""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec

from omniq_nb.errors import StoreUnavailable, StoreVersionError
from omniq_nb.storage.nats import words
from omniq_nb.storage.nats.connection import Connection

VERSION = 1
"""Of the layout of all our streams."""

_KEY = "omniq_nb"
"""Of the version in a stream's metadata."""

_IN_USE = 10058
_GONE = (words.NO_MESSAGE, 10057)
_PAGE = 100_000
AT_ONCE = 64
"""Requests under way at the same time."""


A = TypeVar("A")
R = TypeVar("R")


class Stored(NamedTuple):
    """A message in a stream."""

    seq: int
    data: bytes
    time: float = 0.0
    """When, in seconds since 1970, if the leader was asked."""


class State(msgspec.Struct):
    """What a stream holds."""

    first_seq: int
    last_seq: int
    messages: int

    @property
    def deleted(self) -> int:
        """How many messages were deleted so far. It only ever grows."""
        return self.last_seq - self.messages


class _Config(msgspec.Struct):
    subjects: list[str] = []
    allow_atomic: bool = False
    allow_direct: bool = False
    metadata: dict[str, str] = {}


class _Info(msgspec.Struct):
    config: _Config
    state: State


class _Subjects(msgspec.Struct):
    subjects: dict[str, int] = {}


class _Listed(msgspec.Struct):
    state: _Subjects


class _Message(msgspec.Struct):
    seq: int
    time: datetime
    data: str = ""


class _Found(msgspec.Struct):
    message: _Message | None = None


_info = msgspec.json.Decoder(_Info).decode
_listed = msgspec.json.Decoder(_Listed).decode
_found = msgspec.json.Decoder(_Found).decode


class Stream:
    """One of our streams.

    Parameters
    ----------
    connection : Connection
        Shared.
    what : str
        What it is for: its name is the prefix and this.
    subjects : sequence of str
        Behind its own subject, which is the prefix and `what`; empty: that subject itself.

    Attributes
    ----------
    name, subject : str
        Of the stream; all that it holds has this subject or one below.
    """

    def __init__(self, connection: Connection, what: str, subjects: Sequence[str] = ()) -> None:
        self.connection = connection
        prefix = connection.options.stream
        self.name = f"{prefix}-{what}"
        self.subject = f"{prefix}.{what}"
        self._subjects = [f"{self.subject}.{part}" for part in subjects] or [self.subject]

    async def ensure(self) -> None:
        """Make it if it is missing, or see whether it is fit for use."""
        answer = await self._answer("STREAM.INFO", accept=(words.NO_STREAM,))
        if b'"error"' in answer:
            config = {
                "name": self.name,
                "subjects": self._subjects,
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "num_replicas": 1,
                "allow_atomic": True,
                "allow_direct": True,
                "metadata": {_KEY: str(VERSION)},
            }
            # Several may come here at once: the same configuration again is no error.
            await self._answer("STREAM.CREATE", config, accept=(_IN_USE,))
            answer = await self._answer("STREAM.INFO")
        self._check(_info(answer).config)

    async def state(self) -> State:
        """Ask the stream's leader: whatever was acknowledged before is part of the answer."""
        return _info(await self._answer("STREAM.INFO")).state

    async def subjects(self, pattern: str) -> set[str]:
        """List the subjects of its messages, as far as they match."""
        found: set[str] = set()
        while True:
            body = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self._answer("STREAM.INFO", body)
            page = _listed(answer).state.subjects
            found |= page.keys()
            if not page or len(page) < _PAGE:
                return found

    async def last(self, subject: str) -> Stored | None:
        """Give the newest message of a subject."""
        return await self._get({"last_by_subj": subject})

    async def message(self, seq: int) -> Stored | None:
        """Give a message. None: it was deleted."""
        body = msgspec.json.encode({"seq": seq})
        answer = await self.connection.ask(f"$JS.API.DIRECT.GET.{self.name}", body)
        if answer.headers and "Status" not in answer.headers:
            return Stored(seq, answer.data)
        return await self._get({"seq": seq})  # a follower may not have it yet

    async def messages(self, seqs: Iterable[int]) -> list[Stored | None]:
        """Give several, in their order."""
        return await together(self.message, seqs)

    async def named(self, subjects: Iterable[str]) -> list[Stored | None]:
        """Give the newest message of each subject, in their order."""
        return await together(self._named, subjects)

    async def purge(self, subject: str | None = None, below: int | None = None) -> None:
        """Delete all messages of a subject, and below that sequence number if one is given."""
        body: dict[str, object] = {}
        if subject is not None:
            body["filter"] = subject
        if below is not None:
            body["seq"] = below
        await self._answer("STREAM.PURGE", body)

    async def delete(self, seqs: Iterable[int]) -> None:
        """Delete single messages. Missing is fine."""
        await together(self._delete, seqs)

    # ---------------------------------------------------------------- inside

    async def _named(self, subject: str) -> Stored | None:
        target = f"$JS.API.DIRECT.GET.{self.name}.{subject}"
        answer = await self.connection.ask(target, b"")
        if answer.headers and "Status" not in answer.headers:
            return Stored(int(answer.headers["Nats-Sequence"]), answer.data)
        return await self.last(subject)

    async def _delete(self, seq: int) -> None:
        await self._answer("STREAM.MSG.DELETE", {"seq": seq, "no_erase": True}, accept=_GONE)

    async def _get(self, body: Mapping[str, object]) -> Stored | None:
        answer = await self._answer("STREAM.MSG.GET", body, accept=(words.NO_MESSAGE,))
        message = _found(answer).message
        if message is None:
            return None
        return Stored(message.seq, b64decode(message.data), message.time.timestamp())

    async def _answer(
        self, verb: str, body: Mapping[str, object] | None = None, accept: tuple[int, ...] = ()
    ) -> bytes:
        return await self.connection.api(f"{verb}.{self.name}", body, accept)

    def _check(self, config: _Config) -> None:
        version = config.metadata.get(_KEY, str(VERSION))
        if not version.isdecimal() or int(version) > VERSION:
            raise StoreVersionError(
                f"The stream {self.name!r} has version {version} of its layout; this omniq_nb "
                f"knows up to {VERSION}. Upgrade omniq_nb."
            )
        missing = sorted(set(self._subjects) - set(config.subjects))
        if missing or not (config.allow_atomic and config.allow_direct):
            raise StoreUnavailable(
                f"The stream {self.name!r} in {words.where(self.connection.options)} is not one "
                f"of omniq_nb: it must have the subjects {', '.join(self._subjects)}, "
                "allow_atomic and allow_direct. Change it, or choose another prefix by the option "
                "stream."
            )


async def together(work: Callable[[A], Awaitable[R]], each: Iterable[A]) -> list[R]:
    """Do it for each, several at the same time, and give what came of it in order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(argument: A) -> R:
        async with room:
            return await work(argument)

    return list(await asyncio.gather(*map(one, each)))
