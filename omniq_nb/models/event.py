"""What happened to a task, when."""

from enum import StrEnum

import msgspec


class EventType(StrEnum):
    """The kinds of events. The first group is the life of a task, in order."""

    ENQUEUED = "enqueued"
    STARTED = "started"
    RETRIED = "retried"
    RELEASED = "released"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REQUEUED = "requeued"
    PROGRESS = "progress"
    OUTPUT = "output"
    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    SCHEDULE_FIRED = "schedule_fired"
    ENVIRONMENT = "environment"


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One row of the history. Events are appended by the engine, never by a store.

    Attributes
    ----------
    id : str
        Deterministic (``task:token:type``) where there is a task: writing it twice is harmless.
    type : EventType
        What happened.
    at : float
        When, in seconds since 1970 in UTC.
    task_id, name, queue, batch, attempt, worker
        As in `omniq_nb.models.task.Task`.
    started_at : float or None
        Of the attempt, on the event that ends it; `at` is then when it finished.
    message : str or None
        One line for people: an error, a progress note.
    data : str or None
        More, as a JSON object. Of `OUTPUT`: `omniq_nb.core.outputs.Piece`.
    """

    id: str
    type: EventType
    at: float
    task_id: str | None = None
    name: str | None = None
    queue: str | None = None
    batch: str | None = None
    attempt: int = 0
    worker: str | None = None
    started_at: float | None = None
    message: str | None = None
    data: str | None = None
