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
from omniq_nb.storage.journal.queue import JournalTaskQueue
from omniq_nb.storage.journal.schedules import JournalScheduleStore
from omniq_nb.storage.objects.bucket import LocalBucket
from omniq_nb.storage.objects.events import ObjectEventStore
from omniq_nb.storage.objects.results import ObjectResultStore


class FilePlace:
    """One folder on a local disk, for any number of processes.

    Each method gives the same store each time, since the log of a queue has one reader in a
    process.

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
        self._task_queue = JournalTaskQueue(FileLog(folder / "queue", options.fsync))
        self._schedule_storage = JournalScheduleStore(FileLog(folder / "schedules", options.fsync))
        self._result_storage = ObjectResultStore(bucket)
        self._event_storage = ObjectEventStore(bucket)

    def task_queue(self) -> JournalTaskQueue:
        """Give the queue."""
        return self._task_queue

    def result_storage(self) -> ObjectResultStore:
        """Give the results."""
        return self._result_storage

    def event_storage(self) -> ObjectEventStore:
        """Give the events."""
        return self._event_storage

    def schedule_storage(self) -> JournalScheduleStore:
        """Give the schedules."""
        return self._schedule_storage

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        return {
            "durability": "survives crashes and power cuts"
            if self._options.fsync
            else "survives crashes of processes, not power cuts (fsync is off)",
            "sharing": "all processes of this machine",
            "exclusion": "one task has one worker: each log entry is created by one writer only",
        }
