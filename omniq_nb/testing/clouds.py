"""Buckets that misbehave: one in memory, and one that stands before a real server.

What goes wrong, drawn at random for each request: it never arrives; it is done but the answer is
lost; the server is busy (503) or says that there are too many (429); it takes long. Listings come
in small pages, between which others write. The clock of the bucket in memory may be ahead.

Not here: what must hold all the same (the suites, and ``tests/storage/test_bucket_faults.py``).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, TypeVar

from omniq_nb.config.options import AzureOptions, GcsOptions, S3Options
from omniq_nb.storage.buckets.clouds import CLOUDS, Cloud
from omniq_nb.storage.buckets.place import BucketPlace

T = TypeVar("T")

PAGE = 3
"""Names in one page of a listing."""

KINDS = ("before", "after", "busy", "many", "slow")


class Faults:
    """Decides what happens to each request.

    Parameters
    ----------
    share : float
        Of the requests that something happens to.
    seed : int
        The same requests meet the same fate again.
    kinds : sequence of str
        What may happen: of `KINDS`.
    """

    def __init__(self, share: float = 0.0, seed: int = 0, kinds: Sequence[str] = KINDS) -> None:
        self.share = share
        self.kinds = tuple(kinds)
        self.met = dict.fromkeys(KINDS, 0)
        self._random = random.Random(seed)

    async def meet(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a request, or not, or twice as late."""
        kind = self._random.choice(self.kinds) if self._random.random() < self.share else ""
        if kind:
            self.met[kind] += 1
        match kind:
            case "before":
                raise ConnectionError("the connection broke before the request was read")
            case "after":
                await send()
                raise ConnectionError("the connection broke before the answer was read")
            case "busy":
                raise refusal(503, "SlowDown")
            case "many":
                raise refusal(429, "TooManyRequests")
            case "slow":
                await asyncio.sleep(self._random.uniform(0.01, 0.05))
        return await send()


def refusal(status: int, code: str) -> Exception:
    """Make the error that s3fs raises for such an answer."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    answer = {
        "Error": {"Code": code, "Message": "Please reduce your request rate."},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error: Exception = translate_boto_error(ClientError(answer, "PutObject"))
    return error


class World:
    """A bucket in memory, for any number of clients in this process.

    Parameters
    ----------
    faults : Faults, optional
        What goes wrong; nothing unless given.
    conditional : bool
        Whether it knows conditional writes.
    ahead : float
        Seconds by which its clock is ahead of ours.
    """

    def __init__(
        self, faults: Faults | None = None, conditional: bool = True, ahead: float = 0.0
    ) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.faults = faults or Faults()
        self.conditional = conditional
        self.ahead = ahead

    def place(self, prefix: str = "") -> BucketPlace:
        """Give a client of its own."""
        return BucketPlace(
            MEMORY, S3Options(bucket="b", prefix=prefix, storage_options={"world": self})
        )


def faulty_place(share: float, seed: int) -> BucketPlace:
    """Give a client of a new bucket in memory, with faults."""
    return World(Faults(share, seed)).place()


class MemoryFilesystem:
    """What a driver must have, over a `World`."""

    def __init__(self, world: World, **options: object) -> None:
        self._world = world

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        async def send() -> bytes:
            await asyncio.sleep(0)
            if path not in self._world.objects:
                raise FileNotFoundError(path)
            return self._world.objects[path][0][start:end]

        return await self._world.faults.meet(send)

    async def _pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        async def send() -> None:
            await asyncio.sleep(0)
            if mode == "create" and self._world.conditional and path in self._world.objects:
                raise FileExistsError(path)
            self._world.objects[path] = bytes(data), time.time() + self._world.ahead

        await self._world.faults.meet(send)

    async def remove(self, paths: Sequence[str]) -> None:
        """Delete objects."""

        async def send() -> None:
            await asyncio.sleep(0)
            for path in paths:
                self._world.objects.pop(path, None)

        await self._world.faults.meet(send)

    async def lines(self, folder: str) -> list[Mapping[str, Any]]:
        """List a folder, page by page."""
        found: dict[str, Mapping[str, Any]] = {}
        last = ""
        while True:
            page = sorted(
                path
                for path in self._world.objects
                if path.startswith(f"{folder}/") and path > last
            )[:PAGE]

            async def send(page: Sequence[str] = page) -> None:
                await asyncio.sleep(0)

            await self._world.faults.meet(send)
            if not page:
                return list(found.values())
            for path in page:
                name, _, deeper = path.removeprefix(f"{folder}/").partition("/")
                at = None if deeper else self._world.objects.get(path, (b"", 0.0))[1]
                found[name] = {"name": f"{folder}/{name}", "at": _stamp(at)}
            last = page[-1]


def _stamp(at: float | None) -> object:
    return None if at is None else datetime.fromtimestamp(at, UTC)


async def _nothing_to_close(fs: object) -> None:
    """There is no connection."""


MEMORY = CLOUDS["s3"]._replace(
    title="A bucket in memory",
    driver="omniq_nb.testing.clouds:MemoryFilesystem",
    arguments=lambda options: {},
    listing=lambda fs, path: fs.lines(path),
    modified=("at",),
    delete=lambda fs, paths: fs.remove(paths),
    close=_nothing_to_close,
)


class FaultyFilesystem:
    """A cloud's own filesystem, with faults before or after its requests.

    Parameters
    ----------
    cloud : str
        Whose, of `CLOUDS`.
    faults : tuple of float and int
        Share and seed.
    **options
        For the cloud's own.
    """

    def __init__(self, cloud: str, faults: tuple[float, int], **options: Any) -> None:
        module, _, name = CLOUDS[cloud].driver.partition(":")
        self.inner = getattr(import_module(module), name)(**options)
        self.inner.retries = 1
        self.faults = Faults(*faults)

    async def _cat_file(self, path: str, **options: Any) -> bytes:
        data: bytes = await self.faults.meet(lambda: self.inner._cat_file(path, **options))
        return data

    async def _pipe_file(self, path: str, data: bytes, **options: Any) -> None:
        await self.faults.meet(lambda: self.inner._pipe_file(path, data, **options))


def _faulty(kind: str) -> Cloud:
    cloud = CLOUDS[kind]
    return cloud._replace(
        driver="omniq_nb.testing.clouds:FaultyFilesystem",
        arguments=lambda options: cloud.arguments(options) | {"cloud": kind},
        listing=lambda fs, path: fs.faults.meet(lambda: cloud.listing(fs.inner, path)),
        delete=lambda fs, paths: fs.faults.meet(lambda: cloud.delete(fs.inner, paths)),
        close=lambda fs: cloud.close(fs.inner),
    )


class FaultyPlace(BucketPlace):
    """A place on a real server whose requests meet `Faults`: ``storage_options["faults"]``.

    Parameters
    ----------
    kind : str
        Of which cloud, of `CLOUDS`.
    options : S3Options, GcsOptions or AzureOptions
        Where it is and who asks.
    """

    def __init__(self, kind: str, options: S3Options | GcsOptions | AzureOptions) -> None:
        super().__init__(_faulty(kind), options)
