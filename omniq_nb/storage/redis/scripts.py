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

ADD = _script("add", "keys", "tasks", "adding", "answers")
ADD_CLAIM = _script("add_claim", "keys", "answers", "one", "tasks", "adding", "claiming")
CLAIM = _script("claim", "keys", "tasks", "claiming", "answers")
DUE_IN = _script("due_in", "keys", "tasks")
EXTEND = _script("extend", "keys", "tasks")
GET = _script("get", "keys", "tasks")
HELD_BY = _script("held_by", "keys")
PURGE_TASKS = _script("purge_tasks", "keys", "tasks")
SCAN_TASKS = _script("scan_tasks", "keys", "tasks")
SETTLE = _script("settle", "keys", "tasks", "results", "answers")
TRANSITION = _script("transition", "keys", "tasks")
WORKERS = _script("workers")

PUT_RESULTS = _script("put_results", "results")
PURGE_RESULTS = _script("purge_results", "results")
SCAN_RESULTS = _script("scan_results", "results")

REPLACE_EVENTS = _script("replace_events")

DUE_SCHEDULES = _script("due_schedules", "schedules")
PUT_SCHEDULE = _script("put_schedule", "schedules", "answers")
REMOVE_SCHEDULE = _script("remove_schedule", "schedules", "answers")
