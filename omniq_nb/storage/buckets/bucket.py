"""What results and events need of a bucket (`omniq_nb.storage.objects.bucket`), over a network.

The objects family works in threads. Requests belong to the event loop that opened the store, so
a thread hands them to the loop and waits.

Not here: the requests themselves (`connection`).
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from omniq_nb.errors import StoreClosed, StoreError
from omniq_nb.storage.buckets.cache import DiskCache
from omniq_nb.storage.buckets.connection import Connection
from omniq_nb.storage.objects.bucket import Bucket
from omniq_nb.storage.objects.segments import COMPACTED

T = TypeVar("T")

LOOK_EVERY = 5.0
"""Seconds between two looks at whether there is still a loop that will answer."""

FETCHES = 4
"""Segments that are fetched at once: they may be large."""


class RemoteBucket(Bucket):
    """Objects in a cloud. Each store has one of its own; they share the connection.

    Parameters
    ----------
    connection : Connection
        Shared.
    """

    immediate = False
    rest = 5.0

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop: asyncio.AbstractEventLoop | None = None
        endpoint = getattr(connection.options, "endpoint_url", None)
        account = getattr(connection.options, "account_name", None)
        place = f"{connection.cloud.scheme} {endpoint} {account} {connection.root}"
        self._cache = DiskCache(place)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Requests are sent by that loop from now on."""
        self._loop = loop

    def open(self) -> None:
        """Connect."""
        self._wait(self._connection.open(self))
        self.exclusive = self._connection.exclusive

    def close(self) -> None:
        """Let go of the connection."""
        self._wait(self._connection.close(self))

    def names(self, folder: str) -> list[str]:
        """One listing."""
        return [found.name for found in self._wait(self._connection.list(folder))]

    def stamp(self, folder: str) -> object | None:
        """Clouds do not tell."""
        return None

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Many at a time."""
        return self._wait(self._connection.get_all(paths)) if paths else []

    def reader(self, path: str) -> BinaryIO:
        """Open the copy on the local disk, or in memory of what will soon be gone."""
        if path.rpartition("/")[2].startswith(COMPACTED):
            (file,) = self.files([path])
            return Path(file).open("rb", buffering=0)
        (data,) = self.read([path])
        if data is None:
            raise FileNotFoundError(path)
        return BytesIO(data)

    def write(self, objects: Mapping[str, bytes]) -> None:
        """All at the same time."""
        self._wait(self._connection.put_all(objects))

    def create(self, path: str, data: bytes) -> bool:
        """See `Connection.create`."""
        return self._wait(self._connection.create(path, data))

    def delete(self, paths: Iterable[str]) -> None:
        """All at the same time."""
        gone = list(paths)
        if gone:
            self._wait(self._connection.delete(gone))

    def url(self, path: str) -> str:
        """As the cloud's own tools write it."""
        return f"{self._connection.cloud.scheme}://{self._connection.root}/{path}"

    def files(self, paths: Sequence[str]) -> list[str]:
        """Give copies on the local disk, fetched unless they are there."""
        files = {path: self._cache.find(path) for path in paths}
        missing = [path for path, file in files.items() if file is None]
        for start in range(0, len(missing), FETCHES):
            some = missing[start : start + FETCHES]
            for path, data in zip(some, self.read(some), strict=True):
                if data is None:
                    raise FileNotFoundError(path)
                try:
                    files[path] = self._cache.keep(path, data)
                except OSError as error:
                    raise StoreError(
                        f"The segment {self.url(path)!r} cannot be kept on the local disk: {error}."
                    ) from error
        return [file for file in files.values() if file is not None]

    def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._loop.is_closed():
            request.close()
            raise _gone()
        answer = asyncio.run_coroutine_threadsafe(request, self._loop)
        while True:
            try:
                return answer.result(LOOK_EVERY)
            except TimeoutError:
                if answer.done():
                    return answer.result()  # the request's own time-out
                if self._loop.is_closed():
                    raise _gone() from None


def _gone() -> StoreClosed:
    return StoreClosed("The event loop that opened this store is closed.")
