"""The Lua scripts, put together from the files in ``lua/``."""

from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

_FOLDER = files(__package__) / "lua"


class Script(NamedTuple):
    """One verb.

    Attributes
    ----------
    text : bytes
        The program.
    sha : bytes
        By which a server that has seen it once knows it.
    """

    text: bytes
    sha: bytes


def _script(verb: str, *shared: str) -> Script:
    text = b"\n".join((_FOLDER / f"{name}.lua").read_bytes() for name in (*shared, verb))
    return Script(text, sha1(text).hexdigest().encode())


OPEN = _script("open")

ADD = _script("add", "tasks", "adding", "answers")
ADD_CLAIM = _script("add_claim", "tasks", "adding", "claiming", "answers")
CLAIM = _script("claim", "tasks", "claiming", "answers")
DUE_IN = _script("due_in", "tasks")
EXTEND = _script("extend", "tasks")
GET = _script("get", "tasks")
PURGE_TASKS = _script("purge_tasks", "tasks")
SCAN_TASKS = _script("scan_tasks", "tasks")
SETTLE = _script("settle", "tasks", "results", "answers")
TRANSITION = _script("transition", "tasks")
WORKERS = _script("workers")

PUT_RESULTS = _script("put_results", "results")
PURGE_RESULTS = _script("purge_results", "results")
SCAN_RESULTS = _script("scan_results", "results")

REPLACE_EVENTS = _script("replace_events")

DUE_SCHEDULES = _script("due_schedules", "schedules")
PUT_SCHEDULE = _script("put_schedule", "schedules", "answers")
REMOVE_SCHEDULE = _script("remove_schedule", "schedules", "answers")
