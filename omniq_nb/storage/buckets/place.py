"""A bucket, or the part of it below a prefix, that holds all four components.

::

    queue/       the tasks' log (omniq_nb.storage.buckets.log)
    schedules/   the schedules' log
    results/     Parquet segments (omniq_nb.storage.objects)
    events/

The layout is that of a folder (`omniq_nb.storage.file`), without drafts.
"""

from omniq_nb.config.options import AzureOptions, GcsOptions, S3Options
from omniq_nb.storage.buckets.bucket import RemoteBucket
from omniq_nb.storage.buckets.clouds import CLOUDS, Cloud
from omniq_nb.storage.buckets.connection import Connection
from omniq_nb.storage.buckets.log import BucketLog
from omniq_nb.storage.journal.place import JournalPlace
from omniq_nb.storage.objects.events import ObjectEventStore
from omniq_nb.storage.objects.results import ObjectResultStore


class BucketPlace(JournalPlace[ObjectResultStore, ObjectEventStore]):
    """One prefix in one bucket, for any number of processes and machines.

    All four stores share a connection.

    Parameters
    ----------
    cloud : Cloud
        Whose bucket it is.
    options : S3Options, GcsOptions or AzureOptions
        Where it is and who asks.
    """

    def __init__(self, cloud: Cloud, options: S3Options | GcsOptions | AzureOptions) -> None:
        self.connection = connection = Connection(cloud, options)
        super().__init__(
            lambda name: BucketLog(connection, name),
            ObjectResultStore(RemoteBucket(connection)),
            ObjectEventStore(RemoteBucket(connection)),
        )

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        exclusive = self.connection.exclusive
        return {
            "durability": f"as durable as the {self.connection.cloud.word}: an acknowledged write "
            "survives crashes and power cuts",
            "sharing": f"all machines that reach the {self.connection.cloud.word}",
            "exclusion": "one task has one worker: each log entry is created by one writer only, "
            "which was tried"
            if exclusive
            else "none: it does not refuse to create an object twice, so it serves results and "
            "events only, and they are never compacted",
        }


class S3Place(BucketPlace):
    """A bucket of Amazon S3, or of a server that speaks its protocol."""

    def __init__(self, location: str | None, options: S3Options) -> None:
        super().__init__(CLOUDS["s3"], options)


class GcsPlace(BucketPlace):
    """A bucket of Google Cloud Storage."""

    def __init__(self, location: str | None, options: GcsOptions) -> None:
        super().__init__(CLOUDS["gcs"], options)


class AzurePlace(BucketPlace):
    """A container of Azure Blob Storage."""

    def __init__(self, location: str | None, options: AzureOptions) -> None:
        super().__init__(CLOUDS["azure"], options)
