"""A stream prefix on NATS servers that holds all four components."""

from omniq_nb.config.options import NatsOptions
from omniq_nb.storage.journal.place import JournalPlace
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.events import NatsEventStore
from omniq_nb.storage.nats.log import NatsLog
from omniq_nb.storage.nats.results import NatsResultStore


class NatsPlace(JournalPlace[NatsResultStore, NatsEventStore]):
    """One prefix of streams, for any number of processes and machines.

    All four stores share a connection.

    Parameters
    ----------
    location : None
        Where the servers are is among the options.
    options : NatsOptions
        Servers, who asks, and the prefix.
    """

    def __init__(self, location: str | None, options: NatsOptions) -> None:
        connection = Connection(options)
        super().__init__(
            lambda name: NatsLog(connection, name),
            NatsResultStore(connection),
            NatsEventStore(connection),
        )

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
