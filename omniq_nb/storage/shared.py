"""What is opened by the first component that uses it, and closed after the last.

Not here: what that is (the databases of the families), and what stores do with it.
"""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Protocol, TypeVar

from omniq_nb.errors import StoreClosed, StoreError
from omniq_nb.storage.base import Store


class Shareable(Protocol):
    """A database as stores see it."""

    immediate: ClassVar[bool]

    async def open(self, user: object) -> None:
        """Open it for the first user."""

    async def close(self, user: object) -> None:
        """Close it after the last user."""


D = TypeVar("D", bound=Shareable)


class SharedStore(Store, Generic[D]):
    """A component in a database.

    Parameters
    ----------
    database : Shareable
        Where it lives; other components may share it.
    """

    def __init__(self, database: D) -> None:
        self.immediate = database.immediate  # type: ignore[misc]
        self._shared = database
        self._opened = False

    async def open(self) -> None:
        """Connect; see `Store`."""
        await self._shared.open(self)
        self._opened = True

    async def close(self) -> None:
        """Disconnect, if no other component uses the database; see `Store`."""
        self._opened = False
        await self._shared.close(self)

    def is_in(self, database: D) -> bool:
        """Whether it lives in that very database, and so can share a transaction."""
        return self._shared is database

    @property
    def _database(self) -> D:
        if not self._opened:
            raise StoreClosed(
                f"The {type(self).__name__} is not open: it was closed, or open() was not called."
            )
        return self._shared


class Session(ABC):
    """The connections to a server that belong to one event loop of one process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.get_running_loop()

    @property
    def is_ours(self) -> bool:
        """Whether the running loop may use it."""
        return self.process == os.getpid() and self.loop is asyncio.get_running_loop()

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""


S = TypeVar("S", bound=Session)


class Remote(ABC, Generic[S]):
    """A server's connections, for whichever event loop and process asks.

    Parameters
    ----------
    place : str
        What to call it in the middle of a sentence.
    timeout : float
        Seconds for which a lost connection is made again.
    log : Logger
        Where it is told that the server is away, once, and back.
    """

    immediate: ClassVar[bool] = False

    def __init__(self, place: str, timeout: float, log: logging.Logger) -> None:
        self._place = place
        self._timeout = timeout
        self._log = log
        self._users: set[object] = set()
        self._current: S | None = None
        self._opening = asyncio.Lock()
        self._in_trouble = False

    @abstractmethod
    def _new_session(self) -> S:
        """Make one for the running loop. Nothing is connected yet."""

    @abstractmethod
    async def _prepare(self, session: S) -> None:
        """See that what is there is such as we know, or make it."""

    async def open(self, user: object) -> None:
        """Connect for the first user."""
        async with self._opening:
            if not self._users:
                session = self._new_session()
                try:
                    await self._prepare(session)
                except BaseException:
                    await session.close()
                    raise
                self._current = session
            self._users.add(user)

    async def close(self, user: object) -> None:
        """Disconnect after the last user."""
        self._users.discard(user)
        if self._users:
            return
        session, self._current = self._current, None
        if session is not None and session.is_ours:
            await session.close()

    def _session(self) -> S:
        """Give what the running loop may use. A forked child must not use what it inherited."""
        session = self._current
        if session is None:
            raise StoreClosed(f"The connection to {self._place} is closed.")
        if session.is_ours:
            return session
        if session.process == os.getpid() and not session.loop.is_closed():
            raise StoreError(
                f"The connections to {self._place} belong to the event loop that opened them, "
                "and this is another one. Open a client of its own here."
            )
        _inherited.append(session)
        self._opening = asyncio.Lock()
        self._current = self._new_session()
        return self._current

    def _is_away(self, problem: StoreError) -> None:
        """Say so, if nobody has yet."""
        if not self._in_trouble:
            self._in_trouble = True
            self._log.warning("%s Trying again for %g s.", problem, self._timeout)

    def _answers(self) -> None:
        """Say that it is back, if it was away."""
        if self._in_trouble:
            self._in_trouble = False
            self._log.warning("%s answers again", self._place[:1].upper() + self._place[1:])


_inherited: list[Session] = []
"""Connections of a parent process, or of a loop that is gone: to close one would disturb it."""
