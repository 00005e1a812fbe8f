"""Compacted segments on the local disk, so that a repeated query fetches only what is new.

A segment never changes, so a copy is right for ever. Copies that were not used for longest go
when there are too many of them. Processes share the folder.
"""

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path

import platformdirs

LIMIT = 4 * 1024**3
"""Bytes to keep for one bucket."""

IN_USE = 600.0
"""Seconds for which a copy that was asked for stays in any case: a query may be reading it."""


class DiskCache:
    """Copies of objects of one place.

    Parameters
    ----------
    place : str
        Whatever tells this place from all others.
    limit : int
        Bytes to keep.
    """

    def __init__(self, place: str, limit: int = LIMIT) -> None:
        name = hashlib.sha256(place.encode()).hexdigest()[:24]
        self._folder = Path(platformdirs.user_cache_dir("omniq_nb"), "segments", name)
        self._limit = limit

    def find(self, path: str) -> str | None:
        """Give the file with a copy of that object, if there is one."""
        file = self._file(path)
        try:
            os.utime(file)
        except FileNotFoundError:
            return None
        return str(file)

    def keep(self, path: str, data: bytes) -> str:
        """Keep a copy, and give its file."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(path)
        draft = self._folder / f".{secrets.token_hex(8)}"
        try:
            draft.write_bytes(data)
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        self._drop()
        return str(file)

    def _file(self, path: str) -> Path:
        return self._folder / path.replace("/", "_")

    def _drop(self) -> None:
        """Delete what is too much."""
        files = []
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                known = file.stat()
                files.append((known.st_mtime, known.st_size, file))
        size = sum(size for _, size, _ in files)
        for used_at, length, file in sorted(files):
            if size <= self._limit or time.time() - used_at < IN_USE:
                break
            file.unlink(missing_ok=True)
            size -= length
