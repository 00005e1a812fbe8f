"""All four components on NATS JetStream.

The queue and the schedules are the journal family over a stream (`log`): a queue made of
consumers could keep neither priorities nor delays right. Results and events are rows in streams
of their own (`rows`, `results`, `events`). What is larger than a message becomes several of them
(`frames`). One connection serves all (`connection`).
"""

from omniq_nb.errors import StoreUnavailable

try:
    from omniq_nb.storage.nats.place import NatsPlace as NatsPlace
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "nats":
        raise
    raise StoreUnavailable(
        "NATS needs a driver that is not installed: pip install 'omniq_nb[nats]'"
    ) from error
