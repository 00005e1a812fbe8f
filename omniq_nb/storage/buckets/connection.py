"""The requests that everything in a bucket is made of, through passing trouble.

A request that failed for a passing reason (no connection, 429, 503, a time-out) is repeated with
growing pauses. Reading, listing, deleting, and writing under a name of one's own may be repeated
without harm. An exclusive creation may have been done although its answer was lost, or although
the client library repeated it and then met its own object: so whenever it did not plainly
succeed, the object is read back and compared.

Not here: how the three clouds differ (`clouds`), and what the objects mean.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from omniq_nb.config.options import AzureOptions, GcsOptions, S3Options
from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.storage.buckets.clouds import Cloud, Found, Trouble
from omniq_nb.storage.shared import Remote, Session

LOG = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds for which a request is repeated."""

CONNECTING = 8.0
"""Seconds for which the first request of a connection is repeated: a server that is absent, or a
wrong address, should be an error soon."""

ATTEMPT = 15.0
"""Seconds that one try may take, and one more for each MiB that it carries."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 5.0
"""Seconds between two tries; random, so that many clients do not come back at once."""

REQUESTS = 32
"""Requests of one call at the same time."""

NEAR = 256 * 1024
"""Bytes between two parts of an object that are read along: cheaper than another request."""

PROBE = "omniq-probe"
"""The object whose second creation must be refused. It stays, so that one request tells."""

CLOCK = "omniq-clock"
"""The object that everybody writes who connects, to see what time the cloud says it is."""

WRONG = 5.0
"""Seconds by which two clocks must differ, so that one of them is certainly wrong: what it takes
to write and list, and the seconds in which some clouds count, explain no more."""

T = TypeVar("T")


class _Filesystem(Session):
    """One asynchronous fsspec filesystem, on the loop that made it."""

    def __init__(self, cloud: Cloud, options: Any) -> None:
        super().__init__()
        self._cloud = cloud
        self.fs = cloud.filesystem(options)

    async def close(self) -> None:
        """Close its HTTP connections."""
        await self._cloud.close(self.fs)


class Usage(NamedTuple):
    """Requests sent so far, by what clouds charge for them: the dear ones first."""

    writes: int = 0
    lists: int = 0
    reads: int = 0
    deletes: int = 0


class Connection(Remote[_Filesystem]):
    """A bucket, or the part of it below a prefix, for all four components.

    Parameters
    ----------
    cloud : Cloud
        Whose it is.
    options : S3Options, GcsOptions or AzureOptions
        Where it is and who asks.

    Attributes
    ----------
    exclusive : bool
        Whether an object is really created once only here. Known when it is open.
    ahead : float
        Seconds by which the cloud's clock is ahead of ours; 0 if both may be right.
    usage : Usage
        What it has cost.
    """

    def __init__(self, cloud: Cloud, options: S3Options | GcsOptions | AzureOptions) -> None:
        self.cloud = cloud
        self.options = options
        self.root = cloud.root(options)
        self.name = f"the {cloud.word} {cloud.scheme}://{self.root}"
        super().__init__(self.name, TIMEOUT, LOG)
        self.exclusive = False
        self.ahead = 0.0
        self.usage = Usage()

    def _new_session(self) -> _Filesystem:
        return _Filesystem(self.cloud, self.options)

    async def _prepare(self, session: _Filesystem) -> None:
        """See whether it can be written, and whether a second creation is refused."""
        path = self._full(PROBE)
        self.exclusive = False
        for _ in range(2):
            try:
                await self._tried(
                    session.fs,
                    "write to",
                    lambda fs: fs._pipe_file(path, secrets.token_bytes(16), mode="create"),
                    CONNECTING,
                    CONNECTING,
                    taken=True,
                )
                self._count(writes=1)
            except FileNotFoundError:
                raise StoreUnavailable(
                    f"{self._place_begins} does not exist. Create it, or correct the name."
                ) from None
            except _Taken:
                self.exclusive = True
                break
        self.ahead = await self._compare_clocks(session.fs)

    async def _compare_clocks(self, fs: Any) -> float:
        """See how far the cloud's clock is ahead, by an object that was written just now."""
        path = self._full(CLOCK)
        self._count(writes=1, lists=1)
        await self._tried(fs, "write to", lambda fs: fs._pipe_file(path, b""), CONNECTING)
        before = time.time()
        listed = await self._tried(fs, "list", lambda fs: self.cloud.list(fs, self.root), TIMEOUT)
        ahead = next((one.modified - before for one in listed if one.name == CLOCK), 0.0)
        return ahead if abs(ahead) > WRONG else 0.0

    # ---------------------------------------------------------------- requests

    async def get(self, path: str) -> bytes | None:
        """Give an object. None: there is none."""
        full = self._full(path)
        self._count(reads=1)
        try:
            data: bytes = await self._again(f"read {path!r} in", lambda fs: fs._cat_file(full))
        except FileNotFoundError:
            return None
        return data

    async def get_all(self, paths: Sequence[str], at_once: int = REQUESTS) -> list[bytes | None]:
        """Give many objects, fetched at the same time."""
        return await _gathered([partial(self.get, path) for path in paths], at_once)

    async def get_parts(self, path: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Give parts of an object, each by offset and length. None: there is no such object."""
        full = self._full(path)
        ranges = _ranges(spans)

        async def fetch(start: int, stop: int) -> bytes:
            self._count(reads=1)
            data: bytes = await self._again(
                f"read {path!r} in", lambda fs: fs._cat_file(full, start=start, end=stop)
            )
            return data

        try:
            parts = await _gathered([partial(fetch, *span) for span in ranges], REQUESTS)
        except FileNotFoundError:
            return None
        found = []
        for offset, length in spans:
            if not length:
                found.append(b"")
                continue
            number = next(n for n, (start, stop) in enumerate(ranges) if start <= offset < stop)
            begin = offset - ranges[number][0]
            found.append(parts[number][begin : begin + length])
        return found

    async def put(self, path: str, data: bytes) -> None:
        """Store an object under a name that nobody else will ever use."""
        full = self._full(path)
        self._count(writes=1)
        await self._again(
            f"write {path!r} to", lambda fs: fs._pipe_file(full, data), seconds=_seconds(data)
        )

    async def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Store many objects at the same time."""
        puts = [partial(self.put, path, data) for path, data in objects.items()]
        await _gathered(puts, REQUESTS)

    async def create(self, path: str, data: bytes) -> bool:
        """Store an object if that name is free; of any number of callers, one gets True.

        `data` must be unlike that of any other caller: by it one's own object is recognised.
        """
        full = self._full(path)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT
        pauses = _Pauses()
        while True:
            self._count(writes=1)
            trouble: Exception | None = None
            try:
                async with asyncio.timeout(_seconds(data)):
                    await self._session().fs._pipe_file(full, data, mode="create")
                self._answers()
                return True
            except Exception as error:
                match self.cloud.trouble(error):
                    case Trouble.TAKEN | Trouble.PASSING:
                        trouble = error
                    case _:
                        raise self._failed(f"create {path!r} in", error) from error
            there = await self.get(path)
            if there is not None:
                return there == data
            if loop.time() > deadline:
                raise self._failed(f"create {path!r} in", trouble) from trouble
            await pauses.next()

    async def list(self, folder: str) -> list[Found]:
        """List what lies directly in a folder, in no order; none if there is no such folder."""
        full = self._full(folder)
        self._count(lists=1)
        try:
            return await self._again(f"list {folder!r} in", lambda fs: self.cloud.list(fs, full))
        except FileNotFoundError:
            return []

    async def delete(self, paths: Iterable[str]) -> None:
        """Delete objects. Missing ones are fine."""
        full = [self._full(path) for path in paths]
        if full:
            self._count(deletes=len(full))
            await self._again("delete in", lambda fs: self.cloud.delete(fs, full), seconds=TIMEOUT)

    # ---------------------------------------------------------------- inside

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    @property
    def _place_begins(self) -> str:
        return self._place[:1].upper() + self._place[1:]

    def _count(self, **more: int) -> None:
        usage = self.usage._asdict()
        self.usage = Usage(**{kind: count + more.get(kind, 0) for kind, count in usage.items()})

    async def _again(
        self, what: str, request: Callable[[Any], Awaitable[T]], seconds: float = ATTEMPT
    ) -> T:
        """Send a request that may be repeated."""
        answer = await self._tried(self._session().fs, what, request, TIMEOUT, seconds)
        self._answers()
        return answer

    async def _tried(
        self,
        fs: Any,
        what: str,
        request: Callable[[Any], Awaitable[T]],
        patience: float,
        seconds: float = ATTEMPT,
        taken: bool = False,
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        pauses = _Pauses()
        while True:
            try:
                async with asyncio.timeout(seconds):
                    return await request(fs)
            except Exception as error:
                match self.cloud.trouble(error):
                    case Trouble.MISSING:
                        raise FileNotFoundError(what) from error
                    case Trouble.TAKEN if taken:
                        raise _Taken from error
                    case Trouble.PASSING if loop.time() < deadline:
                        self._is_away(self._failed(what, error))
                    case _:
                        raise self._failed(what, error) from error
            await pauses.next()

    def _failed(self, what: str, error: Exception | None) -> StoreError:
        """Put a driver's error as one of ours, in words without secrets."""
        reason = self.cloud.words(error, self.options)
        return StoreUnavailable(f"Could not {what} {self._place}: {reason}.")


class _Taken(Exception):
    """There is an object of that name."""


class _Pauses:
    """Pauses that grow, at random."""

    def __init__(self) -> None:
        self._longest = FIRST_PAUSE

    async def next(self) -> None:
        await asyncio.sleep(random.uniform(self._longest / 2, self._longest))
        self._longest = min(self._longest * 2, LAST_PAUSE)


async def _gathered(requests: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """Await all, so many at the same time; after an error none goes on."""
    if len(requests) == 1:
        return [await requests[0]()]
    room = asyncio.Semaphore(at_once)

    async def one(request: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await request()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _ranges(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where to begin and to stop reading, so that near parts need one request."""
    ranges: list[tuple[int, int]] = []
    for offset, length in sorted(span for span in spans if span[1]):
        if ranges and offset <= ranges[-1][1] + NEAR:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], offset + length)
        else:
            ranges.append((offset, offset + length))
    return ranges


def _seconds(data: bytes) -> float:
    return ATTEMPT + len(data) / (1024 * 1024)
