"""Tasks, results, events and schedules for the suites, and the names that break things."""

from typing import Any

from omniq_nb.models.event import Event, EventType
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule, ScheduleType
from omniq_nb.models.task import Retry, State, Task

NOON = 1_700_000_000.0
"""A moment long ago, so that what was due then is due whatever the clock says."""

NEVER = 32_000_000_000.0
"""A moment in about a thousand years."""

OVER = -60.0
"""A lease that ended a minute before it was given: nobody has to wait for it."""

MEGABYTES_50 = 50 * 1024 * 1024

ODD_NAMES = (
    "a/b",
    "/",
    ".",
    "..",
    "../../../etc/passwd",
    "C:\\temp\\new",
    "it's",
    'say "hello"',
    "`backtick`",
    "'; DROP TABLE tasks; --",
    '" OR ""="',
    "100%",
    "%s %(name)s {0} {name} ${HOME} $1",
    "under_score",
    "underXscore",
    "*?[a-z]",
    "two\nlines",
    "carriage\r\nreturn",
    "tab\there \x01\x1b[31m\x7f",
    " ",
    " leading and trailing ",
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f986\U0001f469\u200d\U0001f680 \u6570\u636e",
    "\u202eright to left",
    "\u2028",
    "\ufeffmark",
    "upper",
    "UPPER",
    "date=2026-01-01/part-0.parquet",
    "key=a&other=b#c?d:e;f,g|h@1.5",
    "-rf",
    "~",
    "NULL",
    "true",
    "0",
    "00",
    "1e3",
    "x" * 5_000,
    "\u6570" * 1_000,
)
"""Each differs from all the others, if only by the case of a letter or by a wildcard."""


def task(id: str, **fields: Any) -> Task:
    """Make a task that is due at once."""
    return Task(
        **{"id": id, "name": "demo.work", "call": id.encode(), "created_at": NOON, **fields}
    )


def full_task(id: str) -> Task:
    """Make a task whose every submitted field differs from its default."""
    return task(
        id,
        call=bytes(range(256)),
        queue="other",
        priority=-7,
        batch="sweep-1",
        position=3,
        arguments='{"lr": 0.1, "text": "caf\u00e9"}',
        tags=("red", "two words", "\U0001f986"),
        metadata='{"owner": "me"}',
        created_at=NOON + 0.123456,
        available_at=NOON + 1.5,
        expires_at=NEVER,
        timeout=1.5,
        result_ttl=86_400.0,
        retry=Retry(limit=3, delay=0.5, backoff=3.0, max_delay=60.0, jitter=0.0, on=("a.B",)),
        schedule="nightly",
        bundles=("b1", "b2"),
    )


def result(task_id: str, token: int = 1, **fields: Any) -> Result:
    """Make a result of the first attempt."""
    defaults = {"name": "demo.work", "state": State.SUCCEEDED, "finished_at": NOON}
    return Result(**{"task_id": task_id, "token": token, **defaults, **fields})


def full_result(task_id: str, token: int = 2) -> Result:
    """Make a result whose every field differs from its default."""
    return result(
        task_id,
        token,
        state=State.FAILED,
        queue="other",
        batch="sweep-1",
        position=3,
        arguments='{"lr": 0.1, "text": "caf\u00e9"}',
        attempt=2,
        worker="host-1-abc",
        created_at=NOON + 0.123456,
        started_at=NOON + 1.000001,
        finished_at=NOON + 2.999999,
        payload=bytes(range(256)),
        value='{"score": 0.5}',
        value_type="builtins.dict",
        error="ValueError: \U0001f986",
        traceback="Traceback:\n  line 1\n",
        output="one\ntwo\n\x1b[31mred",
        expires_at=NEVER,
    )


def event(id: str, at: float = NOON, **fields: Any) -> Event:
    """Make an event of a task's life."""
    return Event(**{"id": id, "type": EventType.STARTED, "at": at, **fields})


def full_event(id: str) -> Event:
    """Make an event whose every field differs from its default."""
    return event(
        id,
        at=NOON + 0.123456,
        type=EventType.FAILED,
        task_id="sweep-1/3",
        name="demo.work",
        queue="other",
        batch="sweep-1",
        attempt=2,
        worker="host-1-abc",
        started_at=NOON - 0.000001,
        message="ValueError: caf\u00e9 \U0001f986",
        data='{"step": 3}',
    )


def schedule(id: str, **fields: Any) -> Schedule:
    """Make a schedule that is due at once."""
    defaults = {
        "type": ScheduleType.INTERVAL,
        "template": task("template"),
        "every": 60.0,
        "next_fire_at": NOON,
    }
    return Schedule(**{"id": id, **defaults, **fields})
