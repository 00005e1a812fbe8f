"""One Redis server as the stores see it: scripts are run, again if need be, and wake-ups heard.

A connection that is lost is made again, and the command in hand sent again, until the option
timeout is over. It may have been carried out the first time, its answer lost: scripts remember
their answers (`lua/answers.lua`), and what else is sent may be sent twice.

Not here: connections (`connections`), words for errors (`words`), what is sent (the stores).
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import NoScriptError

from omniq_nb.config.options import RedisOptions
from omniq_nb.errors import StoreClosed, StoreError, StoreVersionError
from omniq_nb.storage.redis.connections import PAUSE_FIRST, PAUSE_LAST, Listener, Pool, Slot, Word
from omniq_nb.storage.redis.scripts import OPEN, Script
from omniq_nb.storage.redis.words import FAILURES, explained, is_busy, is_lost, where

VERSION = 1
"""Of the layout of all keys."""

LARGEST = 512 * 1024 * 1024
"""Bytes that Redis takes as one value."""

log = logging.getLogger("omniq_nb.redis")


class _Session(NamedTuple):
    """What belongs to one event loop of one process."""

    process: int
    loop: asyncio.AbstractEventLoop
    pool: Pool
    listener: Listener


class RedisDatabase:
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
        self.base = b"{%s}" % options.prefix.encode()
        self._options = options
        self._users: set[object] = set()
        self._session_: _Session | None = None
        self._opening = asyncio.Lock()
        self._in_trouble = False

    # ---------------------------------------------------------------- opening

    async def open(self, user: object) -> None:
        """Connect for the first user, and see that the keys are such as we know."""
        async with self._opening:
            if not self._users:
                session = self._new_session()
                try:
                    await self._check_version(session.pool)
                except BaseException:
                    await session.pool.close()
                    raise
                self._session_ = session
            self._users.add(user)

    async def close(self, user: object) -> None:
        """Disconnect after the last user."""
        self._users.discard(user)
        session = self._session_
        if self._users or session is None:
            return
        self._session_ = None
        if session.process == os.getpid() and session.loop is asyncio.get_running_loop():
            await session.listener.stop()
            await session.pool.close()

    async def _check_version(self, pool: Pool) -> None:
        async with pool.slot() as slot:
            found = int(await self._persist(slot, OPEN, self._words(slot, (VERSION,)), True))
        if found > VERSION:
            raise StoreVersionError(
                f"The keys with the prefix {self._options.prefix!r} on the {where(self._options)} "
                f"were written by a newer omniq_nb: they have version {found}, and this one knows "
                f"{VERSION}. Upgrade omniq_nb here, or choose another prefix."
            )

    def _new_session(self) -> _Session:
        return _Session(
            os.getpid(),
            asyncio.get_running_loop(),
            Pool(self._options),
            Listener(self._options, self.key("wake")),
        )

    def _session(self) -> _Session:
        """Give what the running loop may use. A forked child must not use what it inherited."""
        session = self._session_
        if session is None:
            raise StoreClosed(f"The connection to the {where(self._options)} is closed.")
        if session.process == os.getpid() and session.loop is asyncio.get_running_loop():
            return session
        if session.process == os.getpid() and not session.loop.is_closed():
            raise StoreError(
                f"The connections to the {where(self._options)} belong to the event loop that "
                "opened them, and this is another one. Open a client of its own here."
            )
        _inherited.append(session)
        self._opening = asyncio.Lock()
        self._session_ = self._new_session()
        return self._session_

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
        async with self._session().pool.slot() as slot:
            return await self._persist(slot, script, self._words(slot, request, parts))

    async def command(self, *words: Word) -> Any:
        """Send a command that may be carried out twice, and give the answer."""
        async with self._session().pool.slot() as slot:
            return await self._persist(slot, None, words)

    def _words(self, slot: Slot, request: object, parts: Sequence[bytes] = ()) -> list[Word]:
        """Give the keys and arguments of a script."""
        packed = msgspec.msgpack.encode(request)
        largest = max(map(len, (packed, *parts)))
        if largest > LARGEST:
            raise StoreError(
                f"The {where(self._options)} takes no value of more than {LARGEST >> 20} MB, and "
                f"this one has {largest >> 20} MB: keep such data in files, and pass their paths."
            )
        slot.number += 1
        return [1, self.base, packed, slot.name, slot.number, *parts]

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
                await slot.close()
                if ends_at is None:
                    ends_at = time.monotonic() + self._options.timeout
                if time.monotonic() + pause > ends_at:
                    raise problem from error
                self._say_once(problem)
            else:
                if self._in_trouble:
                    self._in_trouble = False
                    log.warning("The %s answers again", where(self._options))
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

    def _say_once(self, problem: StoreError) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            log.warning("%s Trying again for %g s.", problem, self._options.timeout)

    # ---------------------------------------------------------------- waiting

    @contextmanager
    def hear(self, queues: Sequence[str]) -> Iterator[tuple[Listener, asyncio.Event]]:
        """Listen whether something may be due in these queues; see `Listener`."""
        listener = self._session().listener
        with listener.hear(queues) as heard:
            yield listener, heard

    def wake(self, queues: Iterable[str]) -> None:
        """Wake those of this loop who wait for these queues, as soon as it has sent what it does.

        What is due by the command in hand is then claimed before the answer to it is back. A
        claim that overtakes it finds nothing, and who claimed waits for the server's word.
        """
        session = self._session()
        session.loop.call_soon(session.listener.wake, {queue.encode() for queue in queues})


_inherited: list[_Session] = []
"""Connections of a parent process, or of a loop that is gone: to close one would disturb it."""
