"""A folder that holds all four components: two journals, and Parquet files beside them.

::

    queue/       the tasks' log (omniq_nb.storage.journal.file_log)
    schedules/   the schedules' log
    results/     Parquet segments (omniq_nb.storage.objects)
    events/

No name in it is derived from what a user chose.
"""

from pathlib import Path

from omniq_nb.config.options import FileOptions
from omniq_nb.storage.journal.file_log import FileLog
from omniq_nb.storage.journal.place import JournalPlace
from omniq_nb.storage.objects.bucket import LocalBucket
from omniq_nb.storage.objects.events import ObjectEventStore
from omniq_nb.storage.objects.results import ObjectResultStore


class FilePlace(JournalPlace[ObjectResultStore, ObjectEventStore]):
    """One folder on a local disk, for any number of processes.

    Parameters
    ----------
    path : str
        The folder. It is created when a store is opened.
    options : FileOptions
        Whether to sync.
    """

    def __init__(self, path: str, options: FileOptions) -> None:
        self._options = options
        folder = Path(path).absolute()  # whatever directory the kernel changes to
        bucket = LocalBucket(folder, fsync=options.fsync)
        super().__init__(
            lambda name: FileLog(folder / name, options.fsync),
            ObjectResultStore(bucket),
            ObjectEventStore(bucket),
        )

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        return {
            "durability": "survives crashes and power cuts"
            if self._options.fsync
            else "survives crashes of processes, not power cuts (fsync is off)",
            "sharing": "all processes of this machine",
            "exclusion": "one task has one worker: each log entry is created by one writer only",
        }
