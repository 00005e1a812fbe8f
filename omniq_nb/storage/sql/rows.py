"""Structs as rows of the tables, and back.

The names of columns are those of fields. Each list of names here is at once the order of a row's
values, so that what is written and what is read cannot drift apart.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import msgspec

from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.task import STATES, Retry, Task
from omniq_nb.storage.sql.database import Row

_PLAIN = (
    "id",
    "name",
    "batch",
    "position",
    "arguments",
    "metadata",
    "created_at",
    "timeout",
    "result_ttl",
    "schedule",
)

CALL = (*_PLAIN, "tags", "retry", "depends_on", "bundles")
"""What was asked for, but for `call` itself: the columns of omniq_calls."""

STANDING = (
    "queue",
    "state",
    "priority",
    "available_at",
    "expires_at",
    "attempt",
    "token",
    "lost",
    "worker",
    "started_at",
    "finished_at",
    "error",
)
"""Where a task stands: the columns of omniq_tasks."""

NEW_STANDING = ("seq", "queue", "state", "priority", "available_at", "expires_at", "token")
"""What is known of a new task; the other columns of omniq_tasks have defaults."""

TASK = ("seq", *CALL, *STANDING)
TASK_COLUMNS = ", ".join(["t.seq", *(f"c.{n}" for n in CALL), *(f"t.{n}" for n in STANDING)])
"""The same in SQL, where c is omniq_calls and t is omniq_tasks."""

RESULT = tuple(sorted(Result.__struct_fields__, key="payload".__eq__))  # the payload comes last
EVENT = Event.__struct_fields__

_plain_values = attrgetter(*_PLAIN)
_result_values = attrgetter(*RESULT)
_event_values = attrgetter(*EVENT)
_RESULT_STATE, _EVENT_TYPE = RESULT.index("state"), EVENT.index("type")


def columns(names: Sequence[str], prefix: str = "") -> str:
    """Names as a list in SQL."""
    return ", ".join(prefix + name for name in names)


def call_row(seq: int, task: Task) -> Row:
    """Make a new task a row of omniq_calls: `seq`, then `CALL`, then `call`."""
    tags, depends_on, bundles = _list(task.tags), _list(task.depends_on), _list(task.bundles)
    return (seq, *_plain_values(task), tags, _json(task.retry), depends_on, bundles, task.call)


def new_standing_row(seq: int, task: Task, token: int) -> Row:
    """Make a new task a row of omniq_tasks: the columns of `NEW_STANDING`."""
    # It is blocked until what it depends on has been looked at.
    state = "blocked" if task.depends_on else "queued"
    return (seq, task.queue, state, task.priority, task.available_at, task.expires_at, token)


def task_of(row: Row) -> Task:
    """Make a task of the columns of `TASK`, and perhaps `call`."""
    fields = dict(zip((*TASK, "call"), row, strict=False))
    fields["tags"] = words(fields["tags"])
    fields["depends_on"] = words(fields["depends_on"])
    fields["bundles"] = words(fields["bundles"])
    fields["retry"] = _retry(fields["retry"])
    fields["state"] = STATES[fields["state"]]
    return Task(**fields)


def result_row(result: Result) -> Row:
    """Make a result the columns of `RESULT`."""
    values = list(_result_values(result))
    values[_RESULT_STATE] = result.state.value
    return tuple(values)


def result_of(row: Row) -> Result:
    """Make a result of the columns of `RESULT`."""
    fields = dict(zip(RESULT, row, strict=True))
    fields["state"] = STATES[fields["state"]]
    return Result(**fields)


def event_row(event: Event) -> Row:
    """Make an event the columns of `EVENT`."""
    values = list(_event_values(event))
    values[_EVENT_TYPE] = event.type.value
    return tuple(values)


def _list(words: tuple[str, ...]) -> str:
    return _json(words) if words else "[]"  # as most are: quicker than to look it up


@lru_cache(1024)
def _json(value: Retry | tuple[str, ...]) -> str:
    return msgspec.json.encode(value).decode()


@lru_cache(1024)
def words(text: str) -> tuple[str, ...]:
    """Read a list of strings that was stored as JSON."""
    return msgspec.json.decode(text, type=tuple[str, ...])


@lru_cache(1024)
def _retry(text: str) -> Retry:
    return msgspec.json.decode(text, type=Retry)
