"""What families that keep files in a local folder share: clearing away what the dead left."""

import os
import time
from collections.abc import Container
from pathlib import Path

ABANDONED = 24 * 3600.0
"""Seconds after which a draft, or a file that nothing refers to, is a dead process's remains."""


def delete_abandoned(folder: str | os.PathLike[str], keep: Container[str] = ()) -> None:
    """Delete the old files of a folder, but for those named in `keep`.

    Others write and delete in the same folder meanwhile.
    """
    horizon = time.time() - ABANDONED
    with os.scandir(folder) as files:
        for file in files:
            try:
                old = file.name not in keep and file.stat().st_mtime < horizon
            except FileNotFoundError:
                continue  # its writer was faster
            if old:
                Path(file.path).unlink(missing_ok=True)
