"""A stream prefix on NATS servers that holds all four components."""

from omniq_nb.config.options import NatsOptions
from omniq_nb.storage.journal.queue import JournalTaskQueue
from omniq_nb.storage.journal.schedules import JournalScheduleStore
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.events import NatsEventStore
from omniq_nb.storage.nats.log import NatsLog
from omniq_nb.storage.nats.results import NatsResultStore


class NatsPlace:
    """One prefix of streams, for any number of processes and machines.

    Each method gives the same store each time, since the log of a queue has one reader in a
    process. All four share a connection.

    Parameters
    ----------
    location : None
        Where the servers are is among the options.
    options : NatsOptions
        Servers, who asks, and the prefix.
    """

    def __init__(self, location: str | None, options: NatsOptions) -> None:
        connection = Connection(options)
        self._task_queue = JournalTaskQueue(NatsLog(connection, "queue"))
        self._schedule_storage = JournalScheduleStore(NatsLog(connection, "schedules"))
        self._result_storage = NatsResultStore(connection)
        self._event_storage = NatsEventStore(connection)

    def task_queue(self) -> JournalTaskQueue:
        """Give the queue."""
        return self._task_queue

    def result_storage(self) -> NatsResultStore:
        """Give the results."""
        return self._result_storage

    def event_storage(self) -> NatsEventStore:
        """Give the events."""
        return self._event_storage

    def schedule_storage(self) -> JournalScheduleStore:
        """Give the schedules."""
        return self._schedule_storage

    async def promises(self) -> dict[str, str]:
        """Say what it promises; see `omniq_nb.storage.probe`."""
        return {
            "durability": "survives crashes of processes; a power cut may undo what the server "
            "wrote since its last sync (sync_interval, two minutes unless configured otherwise; "
            "'always' prevents it)",
            "sharing": "all machines that reach the servers",
            "exclusion": "one task has one worker: the server takes a log entry only behind the "
            "one that its writer read last",
        }
