"""A rule that enqueues a task at each of its fire times.

Not here: when a rule fires next (`omniq_nb.core.scheduler`).
"""

from enum import StrEnum

import msgspec

from omniq_nb.models.task import Task


class ScheduleType(StrEnum):
    """The kinds of rules."""

    CRON = "cron"
    INTERVAL = "interval"
    ONCE = "once"


class ScheduleState(StrEnum):
    """ACTIVE fires; PAUSED does not; DONE has no fire time left."""

    ACTIVE = "active"
    PAUSED = "paused"
    DONE = "done"


class Schedule(msgspec.Struct, kw_only=True, omit_defaults=True):
    """When to enqueue what.

    Attributes
    ----------
    id : str
        Chosen by the user; each fire time's task has the id ``{id}@{fire_time}``.
    type : ScheduleType
        Which of the next three fields holds the rule.
    cron : str or None
        Five fields (minute, hour, day, month, weekday), as in Debian's cron.
    every : float or None
        Seconds from one fire time to the next, counted from `starts_at`.
    at : float or None
        The one fire time.
    timezone : str
        The IANA zone in which `cron` is read.
    starts_at : float
        No fire time is earlier.
    template : Task
        The task to enqueue: its id, times and state are set at each fire time.
    state : ScheduleState
        Whether it fires.
    next_fire_at, last_fire_at : float or None
        Seconds since 1970 in UTC.
    created_at : float
        When it was first put.
    version : int
        Counts its changes: a put names the version that it read.
    """

    id: str
    type: ScheduleType
    template: Task
    cron: str | None = None
    every: float | None = None
    at: float | None = None
    timezone: str = "UTC"
    starts_at: float = 0.0
    state: ScheduleState = ScheduleState.ACTIVE
    next_fire_at: float | None = None
    last_fire_at: float | None = None
    created_at: float = 0.0
    version: int = 0
