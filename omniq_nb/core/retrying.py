"""Whether a failed attempt is repeated, and when. Pure: clock and chance are given.

Not here: the policy itself (`omniq_nb.models.task.Retry`).
"""

import builtins
import random
from collections.abc import Iterable

from omniq_nb.config.sources import nearest
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import Task


def next_attempt(
    task: Task, error_types: tuple[str, ...], now: float, rng: random.Random
) -> float | None:
    """Tell when the retry may start. None: there is none.

    Parameters
    ----------
    task : Task
        As claimed for the attempt that failed.
    error_types : tuple of str
        The exception's type and its bases, as ``"module.QualName"``.
    now : float
        Seconds since 1970 in UTC.
    rng : random.Random
        Draws the jitter.
    """
    retry = task.retry
    if not task.retries_left or not set(retry.never).isdisjoint(error_types):
        return None
    if retry.on and set(retry.on).isdisjoint(error_types):
        return None
    earlier_retries = max(0, task.attempt - task.lost - 1)
    try:
        wait = min(retry.delay * retry.backoff**earlier_retries, retry.max_delay)
    except OverflowError:
        wait = retry.max_delay if retry.delay else 0.0
    return now + wait * (1.0 + retry.jitter * rng.random())


def exception_names(key: str, value: object) -> tuple[str, ...]:
    """Name exceptions as a `Retry` holds them: ``"module.QualName"``.

    Parameters
    ----------
    key : str
        The option's name, for the error.
    value : exception type, str, or several of them
        Built-in exceptions may be named without their module.

    Raises
    ------
    ConfigError
        Something else was given.
    """
    if isinstance(value, type | str) or not isinstance(value, Iterable):
        value = (value,)
    return tuple(dict.fromkeys(_name(key, item) for item in value))


def _name(key: str, item: object) -> str:
    if isinstance(item, type) and issubclass(item, BaseException):
        return f"{item.__module__}.{item.__qualname__}"
    if isinstance(item, str):
        if "." in item:
            return item
        known = getattr(builtins, item, None)
        if isinstance(known, type) and issubclass(known, BaseException):
            return _name(key, known)
    errors = [name for name in vars(builtins) if name.endswith(("Error", "Exception"))]
    allowed = 'exception types, or names like "ValueError" and "package.module.TheirError"'
    raise ConfigError(key, item, allowed, nearest(item, errors))
