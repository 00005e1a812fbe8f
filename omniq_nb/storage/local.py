"""What families that keep files in a local folder share: clearing away what the dead left."""

import os
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

ABANDONED = 24 * 3600.0
"""Seconds after which a draft, or a file that nothing refers to, is a dead process's remains."""


def abandoned(folder: str | os.PathLike[str]) -> dict[str, bool]:
    """Give the names of the files in a folder, and whether each is old.

    Others write and delete in the same folder meanwhile.
    """
    horizon = time.time() - ABANDONED
    found = {}
    with os.scandir(folder) as files:
        for file in files:
            with suppress(FileNotFoundError):  # its writer was faster
                found[file.name] = file.stat().st_mtime < horizon
    return found


def delete_abandoned(folder: str | os.PathLike[str], keep: Container[str] = ()) -> None:
    """Delete the old files of a folder, but for those named in `keep`."""
    for name, old in abandoned(folder).items():
        if old and name not in keep:
            Path(folder, name).unlink(missing_ok=True)
