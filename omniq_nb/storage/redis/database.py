"""One Redis server as the stores see it: scripts are run, again if need be, and wake-ups heard.

A connection that is lost is made again, and the command in hand sent again, until the option
timeout is over. It may have been carried out the first time, its answer lost: scripts remember
their answers (`lua/answers.lua`), and what else is sent may be sent twice.

Not here: connections (`connections`), words for errors (`words`), what is sent (the stores).
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from omniq_nb.config.options import RedisOptions
from omniq_nb.errors import StoreError, StoreVersionError
from omniq_nb.storage.redis.connections import PAUSE_FIRST, PAUSE_LAST, Listener, Pool, Slot, Word
from omniq_nb.storage.redis.scripts import OPEN, Script
from omniq_nb.storage.redis.words import FAILURES, explained, is_busy, is_lost, where
from omniq_nb.storage.shared import Remote, Session

VERSION = 1
"""Of the layout of all keys."""

LARGEST = 512 * 1024 * 1024
"""Bytes that Redis takes as one value."""

log = logging.getLogger("omniq_nb.redis")


class _Session(Session):
    """What belongs to one event loop of one process."""

    def __init__(self, options: RedisOptions, channel: bytes) -> None:
        super().__init__()
        self.pool = Pool(options)
        self.listener = Listener(options, channel)

    async def close(self) -> None:
        """Disconnect."""
        await self.listener.stop()
        self.pool.close()


class RedisDatabase(Remote[_Session]):
    """The keys with one prefix, connected for the first store and left after the last.

    Parameters
    ----------
    options : RedisOptions
        Where they are.

    Attributes
    ----------
    base : bytes
        With what all keys begin. In a Redis Cluster the braces keep them together on one node.
    """

    def __init__(self, options: RedisOptions) -> None:
        super().__init__(f"the {where(options)}", options.timeout, log)
        self.base = b"{%s}" % options.prefix.encode()
        self._options = options

    def _new_session(self) -> _Session:
        return _Session(self._options, self.key("wake"))

    async def _prepare(self, session: _Session) -> None:
        """See that the keys are such as we know."""
        slot = await session.pool.take()
        try:
            found = int(await self._persist(slot, OPEN, self._words(slot, (VERSION,)), True))
        finally:
            session.pool.give_back(slot)
        if found > VERSION:
            raise StoreVersionError(
                f"The keys with the prefix {self._options.prefix!r} on {self._place} "
                f"were written by a newer omniq_nb: they have version {found}, and this one knows "
                f"{VERSION}. Upgrade omniq_nb here, or choose another prefix."
            )

    # ---------------------------------------------------------------- working

    def key(self, name: str) -> bytes:
        """Spell a key."""
        return b"%s:%s" % (self.base, name.encode())

    async def run(self, script: Script, request: object = (), parts: Sequence[bytes] = ()) -> Any:
        """Run a script and give its answer.

        Parameters
        ----------
        script : Script
            Which.
        request : object
            What it wants to know, to be sent as MessagePack.
        parts : sequence of bytes
            More of it, already packed, where it may be much.
        """
        pool = self._session().pool
        slot = await pool.take()
        try:
            return await self._persist(slot, script, self._words(slot, request, parts))
        finally:
            pool.give_back(slot)

    async def command(self, *words: Word) -> Any:
        """Send a command that may be carried out twice, and give the answer."""
        self._check_size(word for word in words if isinstance(word, bytes))
        pool = self._session().pool
        slot = await pool.take()
        try:
            return await self._persist(slot, None, words)
        finally:
            pool.give_back(slot)

    def _words(self, slot: Slot, request: object, parts: Sequence[bytes] = ()) -> list[Word]:
        """Give the keys and arguments of a script."""
        packed = msgspec.msgpack.encode(request)
        self._check_size((packed, *parts))
        slot.number += 1
        return [1, self.base, packed, slot.name, slot.number, *parts]

    def _check_size(self, words: Iterable[bytes]) -> None:
        largest = max(map(len, words), default=0)
        if largest > LARGEST:
            raise StoreError(
                f"The {where(self._options)} takes no value of more than {LARGEST >> 20} MB, and "
                f"this one has {largest >> 20} MB: keep such data in files, and pass their paths."
            )

    async def _persist(
        self, slot: Slot, script: Script | None, words: Sequence[Word], opening: bool = False
    ) -> Any:
        """Send a command until it works, it cannot work, or the time is over."""
        ends_at = None
        pause = PAUSE_FIRST
        while True:
            try:
                answer = await self._ask(slot, script, words)
            except FAILURES as error:
                problem = explained(error, self._options)
                if not is_lost(error) or (opening and not is_busy(error)):
                    raise problem from error
                # Perhaps it is another server that answers at this address by now.
                slot.close()
                if ends_at is None:
                    ends_at = time.monotonic() + self._options.timeout
                if time.monotonic() + pause > ends_at:
                    raise problem from error
                self._is_away(problem)
            else:
                self._answers()
                return answer
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_LAST)

    async def _ask(self, slot: Slot, script: Script | None, words: Sequence[Word]) -> Any:
        if script is None:
            return await slot.ask(*words)
        try:
            return await slot.ask("EVALSHA", script.sha, *words)
        except NoScriptError:  # the server was started since, or never saw it
            return await slot.ask("EVAL", script.text, *words)

    # ---------------------------------------------------------------- waiting

    @property
    def listener(self) -> Listener:
        """What hears, for this loop, that something may be due."""
        return self._session().listener
