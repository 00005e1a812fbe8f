"""What the object stores need of a bucket, and a local folder that offers it.

A bucket holds objects: bytes under a path such as ``events/date=2026-01-31/0f3a.parquet``. An
object appears whole or not at all and is never changed. Paths are made by us, never of users'
strings. The calls block; a bucket behind a network serves many paths of one call at a time.

Not here: what the objects mean (`segments`).
"""

# pathlib would take as long as the calls themselves.
# ruff: noqa: PTH100, PTH104, PTH108, PTH116, PTH120, PTH123, PTH208

import os
import secrets
import time
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.storage.local import delete_abandoned

DRAFTS = ".drafts"

SETTLED = 1_000_000_000
"""Nanoseconds after which a folder's time of change tells for certain whether it changed again:
file systems count this time in steps, some of them long."""


class Bucket(ABC):
    """Objects by path. Safe to use from several threads at once.

    `immediate` says that small objects are read and written without waiting for a network.
    `exclusive`, once it is open, says that `create` can be relied on: without it nothing is ever
    compacted. Every method raises `StoreError` if the bucket fails.
    """

    immediate: ClassVar[bool]
    exclusive: bool
    rest: ClassVar[float] = 0.0
    """See `omniq_nb.storage.base.Store`."""

    @abstractmethod
    def attach(self, loop: AbstractEventLoop) -> None:
        """Say which event loop the thread that calls next works for. It runs meanwhile."""

    @abstractmethod
    def open(self) -> None:
        """Connect, create what is missing, and see whether `create` is exclusive here.

        Raises
        ------
        StoreUnavailable
            It cannot be used; the message says why.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect. It may be opened again."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Give the names of the objects and folders directly in `folder`; none if it is missing."""

    @abstractmethod
    def stamp(self, folder: str) -> object | None:
        """Something that differs once the list of `folder` differs. None: cannot tell."""

    @abstractmethod
    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Give whole objects. None: there is no such object (any more)."""

    @abstractmethod
    def reader(self, path: str) -> BinaryIO:
        """Open one object to read parts of it.

        Raises
        ------
        FileNotFoundError
            There is no such object (any more).
        """

    @abstractmethod
    def write(self, objects: Mapping[str, bytes]) -> None:
        """Store objects under paths that nobody else will ever use."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Store an object if that path is free. Of any number of callers, one gets True.

        No two callers may have the same `data`: a bucket behind a network knows its own object
        again by it.
        """

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects. Missing ones are fine: several processes may clean up."""

    @abstractmethod
    def url(self, path: str) -> str:
        """Where other programs (DuckDB, pandas) find the object."""

    @abstractmethod
    def files(self, paths: Sequence[str]) -> list[str]:
        """Give local files with these objects, for DuckDB to read soon.

        Raises
        ------
        FileNotFoundError
            One of them is not there (any more).
        """


class LocalBucket(Bucket):
    """A folder of the local file system, which must have hard links.

    Parameters
    ----------
    folder : path
        Created by `open` if it is missing.
    fsync : bool
        Whether what was written must survive a power cut; a crash it always survives.
    """

    immediate = True
    exclusive = True

    def __init__(self, folder: str | os.PathLike[str], fsync: bool = True) -> None:
        self._root = os.path.abspath(folder)
        self._fsync = fsync
        self._folders: set[str] = set()

    def attach(self, loop: AbstractEventLoop) -> None:
        """Nothing here needs a loop."""

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def open(self) -> None:
        """Try what will be needed, and delete abandoned drafts."""
        drafts = Path(self._root, DRAFTS)
        probe = f"{DRAFTS}/{secrets.token_hex(8)}.probe"
        try:
            drafts.mkdir(parents=True, exist_ok=True)
            self.create(probe, b"")
            self.delete([probe])
            delete_abandoned(drafts)
        except (OSError, StoreError) as error:
            raise StoreUnavailable(
                f"The folder {self._root!r} cannot hold results and events: {error}. "
                "It must be writable and on a file system with hard links."
            ) from error

    def names(self, folder: str) -> list[str]:
        """One look at the folder."""
        try:
            return os.listdir(f"{self._root}/{folder}")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed("list", folder, error) from error

    def stamp(self, folder: str) -> object | None:
        """Give the folder's time of change, once that is long enough ago."""
        try:
            changed = os.stat(f"{self._root}/{folder}").st_mtime_ns
        except OSError:
            return None
        return changed if time.time_ns() - changed > SETTLED else None

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """One file after the other."""
        return [self._read(path) for path in paths]

    def reader(self, path: str) -> BinaryIO:
        """Open the file."""
        try:
            return open(f"{self._root}/{path}", "rb", buffering=0)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failed("open", path, error) from error

    def write(self, objects: Mapping[str, bytes]) -> None:
        """One after the other: draft, then rename."""
        for path, data in objects.items():
            self._write(path, data)

    def _write(self, path: str, data: bytes) -> None:
        draft = self._draft(path, data)
        try:
            os.rename(draft, f"{self._root}/{path}")
            self._sync_folder(os.path.dirname(path))
        except BaseException as error:
            _unlink(draft)
            _unlink(f"{self._root}/{path}")
            if isinstance(error, OSError):
                raise _failed("write", path, error) from error
            raise

    def create(self, path: str, data: bytes) -> bool:
        """Draft, then link: unlike a rename, that fails if the path is taken."""
        draft = self._draft(path, data)
        try:
            os.link(draft, f"{self._root}/{path}")
        except FileExistsError:
            return False
        except OSError as error:
            raise _failed("create", path, error) from error
        finally:
            _unlink(draft)
        self._sync_folder(os.path.dirname(path))
        return True

    def delete(self, paths: Iterable[str]) -> None:
        """One file after the other."""
        folders = set()
        for path in paths:
            try:
                os.unlink(f"{self._root}/{path}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _failed("delete", path, error) from error
            folders.add(os.path.dirname(path))
        for folder in folders:  # what is gone must not come back with a power cut
            self._sync_folder(folder)

    def url(self, path: str) -> str:
        """Give the absolute path."""
        return f"{self._root}/{path}"

    def files(self, paths: Sequence[str]) -> list[str]:
        """Give their absolute paths, without a look at them."""
        return [self.url(path) for path in paths]

    def _read(self, path: str) -> bytes | None:
        try:
            file = os.open(f"{self._root}/{path}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", path, error) from error
        with open(file, "rb", buffering=0) as raw:
            return raw.readall()

    def _draft(self, path: str, data: bytes) -> str:
        """Write a file that nobody looks at, or none, in the file system of its final place."""
        draft = f"{self._root}/{DRAFTS}/{secrets.token_hex(16)}"
        try:
            self._make_folder(os.path.dirname(path))
            with open(draft, "xb", buffering=0) as file:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                if self._fsync:
                    os.fsync(file.fileno())
        except BaseException as error:
            _unlink(draft)
            if isinstance(error, OSError):
                raise _failed("write", path, error) from error
            raise
        return draft

    def _make_folder(self, folder: str) -> None:
        if folder in self._folders:
            return
        path = Path(self._root, folder)
        path.mkdir(parents=True, exist_ok=True)
        while folder:  # a file is not safe in a folder whose own name is not
            folder = os.path.dirname(folder)
            self._sync_folder(folder)
        self._folders.add(path.relative_to(self._root).as_posix())

    def _sync_folder(self, folder: str) -> None:
        if not self._fsync or os.name == "nt":  # Windows has no such call and needs none
            return
        try:
            descriptor = os.open(f"{self._root}/{folder}", os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed("sync", folder, error) from error


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _failed(verb: str, path: str, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(f"Could not {verb} {path!r}: {reason}.")
