"""What a user may say about a task besides its arguments, and its translation into a `Task`.

Not here: the defaults from the configuration (`omniq_nb.config`), which `TaskOptions.defaults`
is given, and the call itself (`omniq_nb.core.submission`).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

import msgspec

from omniq_nb.config.sources import nearest
from omniq_nb.core.retrying import exception_names
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import Retry

Seconds = float | timedelta
"""A span: a number of seconds, or a timedelta."""


class Options(TypedDict, total=False):
    """The keyword arguments of ``oq.task(...)`` and ``.options(...)``.

    Attributes
    ----------
    name : str
        What the task is called; the function's qualified name unless given.
    queue : str
        The queue; ``OMNIQ_DEFAULT_QUEUE`` unless given.
    priority : int
        Higher runs first within its queue; 0 unless given.
    retries : int or Retry
        Retries after the first attempt; a `Retry` says everything at once.
    retry_delay, retry_backoff, retry_max_delay, retry_jitter : float
        See `omniq_nb.models.task.Retry`.
    retry_on, never_retry : exception types or names
        Retry only after these; never after those.
    timeout : seconds or timedelta
        The longest that one attempt may take.
    delay : seconds or timedelta
        Start no earlier than this long from now.
    eta : datetime
        Start no earlier than this; without a time zone it is local time.
    ttl : seconds or timedelta
        Expire unless started this long after submission.
    result_ttl : seconds or timedelta
        How long the result is kept.
    tags : words
        For finding tasks again.
    metadata : mapping
        Anything JSON, for finding tasks again and for the task itself.
    key : str
        A deduplication key: a second task of the same name and key is the same task.
    after : handles or ids
        Tasks that must succeed first; this one is cancelled if one of them does not.
    """

    name: str
    queue: str
    priority: int
    retries: int | Retry
    retry_delay: Seconds
    retry_backoff: float
    retry_max_delay: Seconds
    retry_jitter: float
    retry_on: object
    never_retry: object
    timeout: Seconds | None
    delay: Seconds
    eta: datetime
    ttl: Seconds | None
    result_ttl: Seconds | None
    tags: Sequence[str]
    metadata: Mapping[str, object]
    key: str
    after: object


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Validated options, in the units of a `Task`. See `Options` for their meaning."""

    name: str | None = None
    queue: str = "default"
    priority: int = 0
    retry: Retry = Retry()
    timeout: float | None = None
    delay: float = 0.0
    eta: float | None = None
    ttl: float | None = None
    result_ttl: float | None = None
    tags: tuple[str, ...] = ()
    metadata: str = "{}"
    key: str | None = None
    after: tuple[str, ...] = ()

    def updated(self, **options: Unpack[Options]) -> "TaskOptions":
        """These options with some of them said anew.

        Raises
        ------
        ConfigError
            An option is unknown or has a wrong value.
        """
        if not options:
            return self
        changes: dict[str, object] = {}
        retry: dict[str, object] = {}
        for key, value in options.items():
            if key == "retries" and isinstance(value, Retry):
                retry.update(msgspec.structs.asdict(value))
            elif key in _RETRY_FIELDS:
                field, convert = _RETRY_FIELDS[key]
                retry[field] = convert(key, value)
            elif key in _FIELDS:
                field, convert = _FIELDS[key]
                changes[field] = convert(key, value)
            else:
                known = [*_FIELDS, *_RETRY_FIELDS]
                raise ConfigError(key, value, ", ".join(sorted(known)), nearest(key, known))
        if "delay" in changes and "eta" in changes:
            raise ConfigError("eta", options["eta"], "eta or delay, not both")
        if retry:
            changes["retry"] = msgspec.structs.replace(self.retry, **retry)
        return msgspec.structs.replace(self, **changes)


# ---------------------------------------------------------------- one converter for each kind


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, "a non-empty string")
    return value


def _integer(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(key, value, "an integer")
    return value


def _count(key: str, value: object) -> int:
    if (number := _integer(key, value)) < 0:
        raise ConfigError(key, value, "0 or more")
    return number


def _number(key: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise ConfigError(key, value, "a number, 0 or more")
    return float(value)


def _seconds(key: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
        raise ConfigError(key, value, "seconds as a number, 0 or more, or a timedelta")
    return float(value)


def positive_seconds(key: str, value: object) -> float | None:
    """A span given by a user; None for no limit."""
    if value is None:
        return None
    if (seconds := _seconds(key, value)) == 0:
        raise ConfigError(key, value, "more than 0 seconds, or None for no limit")
    return seconds


def _moment(key: str, value: object) -> float:
    if not isinstance(value, datetime):
        raise ConfigError(key, value, "a datetime; without a time zone it is local time")
    return value.timestamp()


def _words(key: str, value: object) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, Sequence | set | frozenset) or not all(
        isinstance(word, str) for word in words
    ):
        raise ConfigError(key, value, "a list of strings")
    return tuple(words)


def _json_object(key: str, value: object) -> str:
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, "a mapping from strings to JSON values")
    try:
        return json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(key, value, f"values that JSON can hold ({error})") from None


def _ids(key: str, value: object) -> tuple[str, ...]:
    """Ids of tasks, given as ids, as handles, or as whole batches."""
    if isinstance(value, str):
        return (value,)
    if isinstance(task_id := getattr(value, "id", None), str):
        return (task_id,)
    if isinstance(ids := getattr(value, "ids", None), Sequence):
        return tuple(ids)
    if isinstance(value, Sequence | set | frozenset):
        return tuple(task_id for item in value for task_id in _ids(key, item))
    raise ConfigError(key, value, "task ids, handles or batches")


def _exceptions(key: str, value: object) -> tuple[str, ...]:
    return exception_names(key, value)


_FIELDS = {
    "name": ("name", _text),
    "queue": ("queue", _text),
    "priority": ("priority", _integer),
    "timeout": ("timeout", positive_seconds),
    "delay": ("delay", _seconds),
    "eta": ("eta", _moment),
    "ttl": ("ttl", positive_seconds),
    "result_ttl": ("result_ttl", positive_seconds),
    "tags": ("tags", _words),
    "metadata": ("metadata", _json_object),
    "key": ("key", _text),
    "after": ("after", _ids),
}
_RETRY_FIELDS = {
    "retries": ("limit", _count),
    "retry_delay": ("delay", _seconds),
    "retry_backoff": ("backoff", _number),
    "retry_max_delay": ("max_delay", _seconds),
    "retry_jitter": ("jitter", _number),
    "retry_on": ("on", _exceptions),
    "never_retry": ("never", _exceptions),
}
