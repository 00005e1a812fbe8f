"""One connection to NATS for all four components, made anew whenever it breaks.

The driver's own reconnecting is not used: it would keep requests without an answer waiting, and
send others again that nobody knows of. Here each connection ends once. Whoever then waits for
an answer learns at once that it is `Lost`; the next request makes a new connection, after a
pause that grows. So a writer always knows which of its writes are in doubt.

A forked child, or another event loop, makes a connection of its own.

Not here: what is asked (`streams`, `frames`), and the words for what goes wrong (`words`).
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from omniq_nb.config.options import NatsOptions
from omniq_nb.errors import StoreClosed, StoreUnavailable
from omniq_nb.storage.nats import words
from omniq_nb.storage.nats.words import FAILURES, Lost

LOG = logging.getLogger(__name__)

VERSION = (2, 12)
"""Of the server, at least: from then on it stores several messages as a whole."""

CONNECTING = 5.0
"""Seconds that one server has to let us in, or less if the option `timeout` is less."""

CLOSING = 2.0
"""Seconds that a connection has to send what is left, when it is closed."""

PINGS = 10
"""Seconds between two pings. A connection whose pings are not answered counts as broken."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to connect again."""

Handler = Callable[[Msg], Awaitable[None]]
R = TypeVar("R")


class Answer(msgspec.Struct):
    """What every answer of JetStream may hold."""

    class Failure(msgspec.Struct):
        """Why it was not done."""

        description: str = ""
        err_code: int = 0

    error: Failure | None = None


class _Tls(ssl.SSLContext):
    """The system's trust, and a note of whether a connection was encrypted at all.

    The driver goes on in clear if a server does not speak of TLS, whatever the URL says.
    """

    used = False

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        """Begin to encrypt."""
        self.load_default_certs()  # only now: it takes as long as connecting
        made = super().wrap_bio(*arguments, **more)
        self.used = True
        return made


class Life:
    """One connection, from its start to its end.

    Parameters
    ----------
    options : NatsOptions
        Where the servers are, and who asks.

    Attributes
    ----------
    client : Client
        The driver's.
    over : Event
        Set when it ended.
    mourners : set of callable
        Called when it ends.
    """

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._credentials = Path(options.creds_file).expanduser() if options.creds_file else None
        if self._credentials is not None and not self._credentials.is_file():
            raise words.no_credentials(options)
        self.client = Client()
        self.over = asyncio.Event()
        self.mourners: set[Callable[[], None]] = set()
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._number = 0
        self._errors: list[Exception] = []

    async def start(self, server: str) -> None:
        """Connect to one server."""
        options = self._options
        encrypted = server.startswith("tls://")
        context = _Tls(ssl.PROTOCOL_TLS_CLIENT)
        seconds = min(CONNECTING, options.timeout)

        def guarded(secret: str | None) -> Callable[[], str] | None:
            """Give a secret away only where the URL's promise is kept."""

            def give() -> str:
                if encrypted and not context.used:
                    raise ssl.SSLError("the server does not offer TLS, which tls:// asks for")
                return secret or ""

            return give if secret else None

        try:
            async with asyncio.timeout(2 * seconds):
                await self.client.connect(
                    [server],
                    name="omniq_nb",
                    error_cb=self._failed,
                    closed_cb=self._ended,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=seconds,  # type: ignore[arg-type]
                    ping_interval=PINGS,
                    user=guarded(options.username),
                    password=guarded(options.password),
                    token=guarded(options.token),
                    user_credentials=self._credentials,
                    tls=context,
                )
            if encrypted and not context.used:
                raise ssl.SSLError("the server does not offer TLS, which tls:// asks for")
            inbox = self.client.new_inbox()
            await self.client.subscribe(f"{inbox}.*", cb=self._answered)
        except BaseException as error:
            await self.end()
            if self._errors and not isinstance(error, ssl.SSLError):
                raise self._errors[-1] from error  # the driver's last word says less
            raise
        self._inbox = inbox

    async def end(self) -> None:
        """Close it, whatever state it is in."""
        await self._ended()
        try:
            async with asyncio.timeout(CLOSING):
                await self.client.close()
        except FAILURES as error:
            LOG.debug("Closing a connection to NATS: %s", error)

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float
    ) -> Msg:
        """Ask, and await the answer. If none comes, the connection ends."""
        self._number += 1
        token = str(self._number)
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = subject, answer
        try:
            async with self._unbroken(seconds):
                await self.client.publish(
                    subject, payload, reply=f"{self._inbox}.{token}", headers=headers
                )
                if self.over.is_set():
                    raise ConnectionError
                return await answer
        finally:
            del self._waiting[token]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # or asyncio complains of one that nobody saw

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Send without awaiting anything but room in the socket."""
        async with self._unbroken():
            await self.client.publish(subject, payload, headers=headers)

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Let messages come."""
        async with self._unbroken():
            return await self.client.subscribe(subject, cb=handler)

    # ---------------------------------------------------------------- inside

    @asynccontextmanager
    async def _unbroken(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Use the connection. If it is broken, or silent for so long, it ends."""
        try:
            async with asyncio.timeout(seconds or self._options.timeout):
                yield
        except TimeoutError:
            await self.end()
            raise words.unanswered(self._options) from None
        except FAILURES as error:
            await self.end()
            raise words.lost(self._options) from error

    async def _answered(self, message: Msg) -> None:
        _, answer = self._waiting.get(message.subject.rpartition(".")[2], (None, None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _failed(self, error: Exception) -> None:
        """Take note of an error that belongs to no call, unless it tells to which."""
        self._errors.append(error)
        del self._errors[:-3]
        said = str(error).lower()
        if "permissions violation" in said:
            for subject, answer in self._waiting.values():
                if f'"{subject.lower()}"' in said and not answer.done():
                    answer.set_exception(words.forbidden(self._options, subject))
        else:
            LOG.debug("From NATS: %s", error)

    async def _ended(self) -> None:
        self.over.set()
        while self.mourners:
            self.mourners.pop()()
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(words.lost(self._options))


class Connection:
    """What all stores of a place share. It connects when the first of them opens.

    Parameters
    ----------
    options : NatsOptions
        Where the servers are, and who asks.

    Attributes
    ----------
    generation : int
        Grows with each connection: what belongs to an earlier one is gone.
    """

    def __init__(self, options: NatsOptions) -> None:
        self.options = options
        self.generation = 0
        self._users: set[object] = set()
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Forget what belongs to another process or event loop; the socket is not ours to close."""
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: Life | None = None
        self._was_lost = False
        self._connecting = asyncio.Lock()

    # ---------------------------------------------------------------- for the stores

    async def open(self, user: object) -> None:
        """Connect for the first user, without trying twice: who starts wants to know.

        Raises
        ------
        StoreUnavailable
            No server lets us in, or it cannot store.
        """
        life = await self._alive()
        if user in self._users:
            return
        if not self._users:
            version = life.client.connected_server_version
            if (version.major, version.minor) < VERSION:
                await self.close(user)
                raise words.too_old(self.options, f"{version.major}.{version.minor}")
        self._users.add(user)

    async def close(self, user: object) -> None:
        """Disconnect after the last user."""
        self._users.discard(user)
        if not self._users and self._is_ours():
            life, self._life = self._life, None
            if life is not None:
                await life.end()

    @property
    def max_payload(self) -> int:
        """The most bytes in one message."""
        return self._life.client.max_payload if self._life else 1024 * 1024

    @property
    def current(self) -> Life | None:
        """The connection as it is, broken or not, if it belongs to this process and loop."""
        return self._life if self._is_ours() else None

    async def life(self) -> Life:
        """Give the connection; a broken one is made anew, as often as `timeout` allows."""
        if not self._users:
            raise StoreClosed(f"{words.where(self.options)} is used before open() or after close()")
        if self._is_ours() and self._life is not None and not self._life.over.is_set():
            return self._life
        started = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._alive()
            except StoreUnavailable:
                if time.monotonic() - started + pause > self.options.timeout:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> Msg:
        """Ask once.

        Raises
        ------
        Lost
            Nobody knows whether it was done.
        StoreError
            It was not done.
        """
        life = await self.life()
        answer = await life.request(subject, payload, headers, self.options.timeout / 2)
        if answer.headers and answer.headers.get("Status") == "503":
            if subject.startswith("$JS.API."):
                raise words.without_jetstream(self.options)
            raise words.refused(self.options, words.NO_STREAM, "no stream")
        return answer

    async def again(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do what may be done twice, until it is known to be done."""
        started = time.monotonic()
        while True:
            try:
                return await work()
            except Lost:
                if time.monotonic() - started > self.options.timeout:
                    raise

    async def ask(self, subject: str, payload: bytes) -> Msg:
        """Ask, again if need be: for what may be done twice."""
        return await self.again(partial(self.request, subject, payload))

    async def api(
        self, verb: str, body: Mapping[str, object] | None = None, accept: tuple[int, ...] = ()
    ) -> bytes:
        """Call JetStream's API, for what may be done twice; see its error codes in `accept`.

        Raises
        ------
        StoreError
            It answered with an error that is not in `accept`.
        """
        started = time.monotonic()
        pause = FIRST_PAUSE
        payload = b"" if body is None else msgspec.json.encode(body)
        while True:
            answer = await self.ask(f"$JS.API.{verb}", payload)
            failure = failure_in(answer.data)
            if failure is None or failure.err_code in accept:
                return answer.data
            code, said = failure.err_code, failure.description
            late = time.monotonic() - started + pause > self.options.timeout
            if late or not words.passes(code, said):
                raise words.refused(self.options, code, said)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    # ---------------------------------------------------------------- inside

    def _is_ours(self) -> bool:
        return self._pid == os.getpid() and self._loop is asyncio.get_running_loop()

    async def _alive(self) -> Life:
        """Give the connection, or try each server once."""
        if not self._is_ours():
            self._start_afresh()
            self._loop = asyncio.get_running_loop()
        async with self._connecting:
            if self._life is not None and not self._life.over.is_set():
                return self._life
            place = words.where(self.options)
            if self._life is not None:
                LOG.warning("The connection to %s was lost; connecting again", place)
                self._life, self._was_lost = None, True
            reasons: list[Exception] = []
            for server in self.options.servers:
                life = Life(self.options)
                try:
                    await life.start(server)
                except (*FAILURES, ValueError) as error:
                    reasons.append(error)
                    continue
                self._life = life
                self.generation += 1
                if self._was_lost:
                    LOG.warning("Connected to %s again", place)
                    self._was_lost = False
                return life
            raise words.unreachable(self.options, reasons)


def failure_in(answer: bytes) -> Answer.Failure | None:
    """Give what JetStream complains of; None: nothing."""
    return _decode(answer).error


_decode = msgspec.json.Decoder(Answer).decode
