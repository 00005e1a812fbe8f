"""Connections to Redis: how they are made, a pool of them, and one that listens.

All of them belong to one event loop of one process. The driver connects and logs in, and reads
what the listener hears; what it would do beyond that (command and answer, retry, pool) we do
ourselves.

Not here: what errors mean (`words`) and trying again (`database`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import hiredis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from omniq_nb.config.options import RedisOptions
from omniq_nb.errors import ConfigError
from omniq_nb.storage.redis.words import FAILURES

Word: TypeAlias = str | bytes | int | float
"""A part of a command."""

PROBE = 15.0
"""Seconds of silence after which the listener asks whether its connection still lives."""

PAUSE_FIRST, PAUSE_LAST = 0.05, 2.0
"""Seconds between two attempts to reach a server."""


def new_connection(options: RedisOptions) -> AbstractConnection:
    """Make a connection; it connects when it is first used."""
    common: dict[str, Any] = {
        "db": options.database,
        "username": options.username,
        "password": options.password,
        "socket_timeout": None,  # we watch the time ourselves, with less effort
        "socket_connect_timeout": options.timeout,
        "protocol": 2,
    }
    if options.host.startswith("/"):
        return UnixDomainSocketConnection(path=options.host, **common)
    common |= {"host": options.host, "port": options.port}
    if not options.ssl:
        return Connection(**common)
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = common[name] = getattr(options, name)
        if path is not None and not Path(path).is_file():
            raise ConfigError(name, path, "the path of a file with certificates or a key (PEM)")
    return SSLConnection(**common)


class Wire(asyncio.Protocol):
    """A connection that the driver made and we took over, for one command at a time.

    The driver's own way from a command to its answer takes as much time again as the server does.

    Parameters
    ----------
    connection : AbstractConnection
        Connected and logged in, with no answer on its way.

    Attributes
    ----------
    lost : bool
        Whether it is of no use any more.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        assert connection._writer is not None
        self.lost = False
        self._connection = connection  # which disconnects when nobody refers to it
        self._transport = connection._writer.transport
        self._replies = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error
        )
        self._loop = asyncio.get_running_loop()
        self._awaited: asyncio.Future[Any] | None = None
        self._late_at = 0.0
        self._watched = False
        self._transport.set_protocol(self)

    async def ask(self, command: bytes, timeout: float) -> Any:
        """Send a command and wait for the answer."""
        try:
            self._transport.write(command)  # first: the server works while we get ready to wait
            self._awaited = self._loop.create_future()
            self._late_at = self._loop.time() + timeout
            if not self._watched:
                self._watch()
            return await self._awaited
        except ResponseError:
            raise
        except BaseException:
            # A cancellation too: an answer that comes late must not be taken for that to another
            # command.
            self.close()
            raise
        finally:
            self._awaited = None

    def _watch(self) -> None:
        """See whether the command takes too long: one timer does for many short commands."""
        left = self._late_at - self._loop.time()
        self._watched = self._awaited is not None and left > 0
        if self._watched:
            self._loop.call_later(left, self._watch)
        else:
            self._fail(TimeoutError())  # if there is any

    def close(self) -> None:
        """Disconnect."""
        self.lost = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._replies.feed(data)
        try:
            answer = self._replies.gets()
        except InvalidResponse as error:
            answer = error
        if isinstance(answer, Exception):
            self._fail(answer)
        elif answer is not False and self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note."""
        self.lost = True
        error = RedisConnectionError("Connection closed by server.")
        error.__cause__ = exc
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(error)


class Slot:
    """A place for one command at a time, with a connection that is made again when it is lost.

    Parameters
    ----------
    options : RedisOptions
        Where.
    name : str
        Unique for ever.

    Attributes
    ----------
    name : str
        As given.
    number : int
        Of the latest command.
    """

    def __init__(self, options: RedisOptions, name: str) -> None:
        self.name = name
        self.number = 0
        self._options = options
        self._wire: Wire | None = None

    async def ask(self, *words: Word) -> Any:
        """Send a command and wait for the answer."""
        if self._wire is None or self._wire.lost:
            self._wire = await self._connected()
        command = hiredis.pack_command(words)  # type: ignore[arg-type]
        return await self._wire.ask(command, self._options.timeout)

    async def _connected(self) -> Wire:
        connection = new_connection(self._options)
        try:
            async with asyncio.timeout(self._options.timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Wire(connection)

    def close(self) -> None:
        """Disconnect."""
        if self._wire is not None:
            self._wire.close()


class Pool:
    """Slots that are used again, the last one first.

    Parameters
    ----------
    options : RedisOptions
        Where, and how many.
    """

    def __init__(self, options: RedisOptions) -> None:
        name = secrets.token_hex(8)
        # A slot connects when it is first used.
        slots = range(options.max_connections, 0, -1)
        self._free = [Slot(options, f"{name}:{number}") for number in slots]
        self._returned = asyncio.Event()
        self._closed = False

    async def take(self) -> Slot:
        """Lend a slot. It must be given back."""
        while not self._free:
            self._returned.clear()
            await self._returned.wait()
        return self._free.pop()

    def give_back(self, slot: Slot) -> None:
        """Have others use it."""
        if self._closed:
            slot.close()
        self._free.append(slot)
        self._returned.set()

    def close(self) -> None:
        """Disconnect what is free, and the others when they come back."""
        self._closed = True
        for slot in self._free:
            slot.close()


class Listener:
    """A connection of its own that hears in which queues something may be due.

    Parameters
    ----------
    options : RedisOptions
        Where.
    channel : bytes
        On which the scripts name queues.

    Attributes
    ----------
    live : bool
        Whether it hears. Otherwise look yourself.
    news : int
        How often there was news, or may have been.
    """

    def __init__(self, options: RedisOptions, channel: bytes) -> None:
        self._options = options
        self._channel = channel
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Event, frozenset[str]] = {}
        self.live = False
        self.news = 0

    def listen(self, queues: Sequence[str]) -> asyncio.Event:
        """Listen from now on, for these queues: look once more, then await the event.

        `forget` the event in the end.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._listen_for_ever(), name="omniq listens")
        heard = asyncio.Event()
        self._waiting[heard] = frozenset(queues)
        return heard

    def forget(self, heard: asyncio.Event) -> None:
        """Nobody awaits this event any more."""
        del self._waiting[heard]

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _listen_for_ever(self) -> None:
        pause = PAUSE_FIRST
        while True:
            connection = new_connection(self._options)
            try:
                with suppress(*FAILURES):
                    await connection.send_command("SUBSCRIBE", self._channel)
                    async for message in self._messages(connection):
                        pause = PAUSE_FIRST
                        self._take(message)
            finally:
                self.live = False
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_LAST)

    async def _messages(self, connection: AbstractConnection) -> AsyncIterator[list[Any]]:
        """Give messages until the connection is lost or silent."""
        asked = False
        while True:
            message = await connection.read_response(timeout=PROBE)
            if message is not None:
                asked = False
                yield message
            elif asked:
                return
            else:
                asked = True
                await connection.send_command("PING")

    def _take(self, message: list[Any]) -> None:
        kind, *_, content = message
        if kind == b"message":
            self.wake({content.decode(errors="replace")})
        elif kind == b"subscribe":
            self.live = True  # and what was said before went unheard
            self.news += 1
            for heard in self._waiting:
                heard.set()

    def wake(self, queues: Set[str]) -> bool:
        """Tell those who wait for one of these queues. Whether there are any."""
        anybody = False
        self.news += 1
        for heard, awaited in self._waiting.items():
            if not awaited.isdisjoint(queues):
                heard.set()
                anybody = True
        return anybody
