"""What a stream holds from some message on, as the server sends it by itself.

A consumer that keeps no state of its own sends every message once, in order; if one is missing,
or the connection is a new one, another consumer goes on behind the last that came. So who reads
along knows what is new without asking. Whoever must know *all* that is new asks for the stream's
last number, and waits until it came: `reach`.

Not here: how many messages make a frame (`frames`).
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import msgspec
from nats.aio.msg import Msg

from omniq_nb.storage.nats import words
from omniq_nb.storage.nats.connection import Life
from omniq_nb.storage.nats.frames import Assembler, Frame
from omniq_nb.storage.nats.streams import Stored, Stream
from omniq_nb.storage.nats.words import FAILURES

LOG = logging.getLogger(__name__)

HEARTBEAT = 30
"""Seconds after which the server says that it has nothing to say."""

ABANDONED = 60
"""Seconds after which the server forgets a consumer whose reader is gone."""

STALLED = 2.0
"""Seconds without a message, while one is due, after which another consumer is made."""

SECOND = 1_000_000_000
"""In the server's unit."""


class _Created(msgspec.Struct):
    num_pending: int = 0


_created = msgspec.json.Decoder(_Created).decode


class Feed:
    """Reads along.

    Parameters
    ----------
    stream : Stream
        What to read.
    take : callable
        Called with each frame, on the event loop.
    deaf : callable, optional
        Called when messages cease to come, because the connection broke.

    Attributes
    ----------
    position : int
        The number of the last message that came, or behind which it starts.
    """

    def __init__(
        self,
        stream: Stream,
        take: Callable[[Frame], None],
        deaf: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._take = take
        self._deaf = deaf
        self._pausing: asyncio.Task[None] | None = None
        self._life: Life | None = None
        self._consumer = ""
        self._came = asyncio.Event()
        self.begin(0)

    def begin(self, after: int, since: float | None = None) -> None:
        """Read what lies behind that number, and was stored at `since` or later, from now on.

        What still comes of an earlier beginning is dropped.
        """
        self.position = after
        self._since = since
        self._assembler = Assembler()
        self._error: Exception | None = None
        self._taking = False

    async def reach(self, seq: int) -> None:
        """Wait until all frames up to that number were taken, as far as they still exist."""
        started = time.monotonic()
        while self.position < seq:
            self._came.clear()
            if not self._runs():
                if await self._start():
                    continue
                self.position = seq  # what lies between was deleted
                break
            if self._error is not None:
                raise self._error
            with suppress(TimeoutError):
                async with asyncio.timeout(STALLED):
                    await self._came.wait()
                    continue
            if time.monotonic() - started > self._stream.connection.options.timeout:
                raise words.unanswered(self._stream.connection.options)
            await self.stop()
        if self._error is not None:
            raise self._error

    async def listen(self) -> None:
        """Let messages come by themselves, if they do not do so already."""
        if not self._runs():
            await self._start()

    async def stop(self) -> None:
        """Let no more come. What came stays."""
        self._taking = False
        life, self._life = self._life, None
        if life is None or life.over.is_set() or life is not self._stream.connection.current:
            return  # what belongs to another process or loop is not ours to touch
        if self._deaf is not None:
            life.mourners.discard(self._deaf)
        with suppress(*FAILURES, words.Lost):
            await self._subscription.unsubscribe()
            target = f"$JS.API.CONSUMER.DELETE.{self._stream.name}.{self._consumer}"
            await life.publish(target, b"")

    def pause(self) -> None:
        """Let no more come until somebody asks again. Safe where a frame is taken."""
        if self._runs():
            self._pausing = asyncio.get_running_loop().create_task(self.stop())

    # ---------------------------------------------------------------- inside

    def _runs(self) -> bool:
        life = self._life
        return bool(
            self._taking
            and life is not None
            and not life.over.is_set()
            and life is self._stream.connection.current
        )

    async def _start(self) -> int:
        """Make a consumer. How many messages lie before it."""
        return await self._stream.connection.again(self._try_to_start)

    async def _try_to_start(self) -> int:
        await self.stop()
        life = await self._stream.connection.life()
        consumer, inbox = secrets.token_hex(8), life.client.new_inbox()
        self._consumer, self._life, self._expected = consumer, life, 1
        self._came = asyncio.Event()  # of this event loop
        self._taking = True
        if self._deaf is not None:
            life.mourners.add(self._deaf)
        config: dict[str, object] = {
            "name": consumer,
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": HEARTBEAT * SECOND,
            "inactive_threshold": ABANDONED * SECOND,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._since is not None and not self.position:
            del config["opt_start_seq"]
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = datetime.fromtimestamp(self._since, UTC).isoformat()
        name = self._stream.name
        try:
            self._subscription = await life.subscribe(inbox, partial(self._arrived, consumer, life))
            body = {"stream_name": name, "config": config}
            answer = await self._stream.connection.api(f"CONSUMER.CREATE.{name}.{consumer}", body)
        except BaseException:
            self._taking = False
            raise
        return _created(answer).num_pending

    async def _arrived(self, consumer: str, life: Life, message: Msg) -> None:
        if not self._taking or consumer != self._consumer:
            return
        if message.headers and message.headers.get("Status") == "100":
            # The server waits until we say that we are still reading.
            reply = message.reply or message.headers.get("Nats-Consumer-Stalled")
            if reply:
                await life.publish(reply, b"")
            return
        # $JS.ACK.[domain.account.]stream.consumer.deliveries.number.order.time.left[.random]
        place = message.reply.split(".")
        place = place[5:] if len(place) == 9 else place[7:]
        if int(place[1]) != self._expected:
            self._taking = False  # one was lost on its way: another consumer goes on from here
            self._came.set()
            return
        self._expected += 1
        self.position = int(place[0])
        frame = self._assembler.add(Stored(self.position, message.data))
        if frame is not None:
            try:
                self._take(frame)
            except Exception as error:
                self._error = error  # for whoever waits in `reach`
        self._came.set()
