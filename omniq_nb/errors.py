"""Every exception that omniq_nb raises on purpose.

::

    OmniQError
    ├── ConfigError (ValueError)         a setting, a URL or a call has a wrong value
    │   └── ScheduleError                a cron expression, an interval or a time zone is wrong
    ├── StoreError                       a store could not do it; nothing was half-written
    │   ├── StoreUnavailable             it cannot be reached, or lacks its driver
    │   ├── StoreClosed                  it was used after close()
    │   └── StoreVersionError            a newer omniq_nb wrote it
    ├── PayloadError                     bytes that cannot become a Python object, or the reverse
    │   ├── NotSerializable              a value that cannot travel
    │   └── PayloadRefused               unsigned, wrongly signed, or forbidden by strict mode
    ├── TaskError                        the outcome of a task that has no value
    │   ├── TaskFailed                   its last attempt raised; the original cannot be rebuilt
    │   ├── TaskTimeout (TimeoutError)   an attempt ran longer than its `timeout`
    │   ├── TaskCancelled                by hand, or a task it depends on did not succeed
    │   ├── TaskExpired                  it was not started within its `ttl`
    │   ├── WorkerLost                   the worker or its process died while it ran
    │   └── ResultExpired                it succeeded, but its result was purged
    ├── QueryError                       a query that is wrong, or is more than reading
    ├── UnknownTask (LookupError)        no such task, schedule or batch
    └── WaitTimeout (TimeoutError)       waiting is over; the work goes on

Not here: how they are shown in a notebook (`omniq_nb.notebook.tracebacks`).
"""

from importlib import import_module


class OmniQError(Exception):
    """The root of the tree: ``except OmniQError`` catches all that is ours."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython what to show in place of a traceback; nobody else asks."""
        # By name: the notebook's room is above this one.
        lines: list[str] = import_module("omniq_nb.notebook.tracebacks").rendered(self)
        return lines


class ConfigError(OmniQError, ValueError):
    """A setting, a URL or an argument has a wrong value.

    Parameters
    ----------
    key : str
        What is wrong, spelled as the user spelled it: ``"task_queue_backend.backend_type"``.
    value : object
        What was given. Never pass a secret: pass ``"***"``.
    allowed : str
        What is allowed, in words.
    nearest : str, optional
        The nearest valid spelling.
    """

    def __init__(self, key: str, value: object, allowed: str, nearest: str | None = None) -> None:
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"{key}: got {value!r}. Allowed: {allowed}.{hint}")
        self.key = key
        self.value = value
        self.allowed = allowed
        self.nearest = nearest

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.key, self.value, self.allowed, self.nearest)


class ScheduleError(ConfigError):
    """A cron expression, an interval, a time or a time zone is wrong."""


class StoreError(OmniQError):
    """A store could not do what was asked. Nothing was half-written."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, lacks what it needs, or its driver is not installed."""


class StoreClosed(StoreError):
    """The store was used after ``close()``."""


class StoreVersionError(StoreError):
    """The data was written by a newer omniq_nb than this one."""


class PayloadError(OmniQError):
    """Bytes that cannot become a Python object, or an object that cannot become bytes."""


class NotSerializable(PayloadError):
    """A value that cannot travel. The message names the value and says what to do."""


class PayloadRefused(PayloadError):
    """A payload that was not opened: unsigned, wrongly signed, or forbidden by strict mode."""


class TaskError(OmniQError):
    """The outcome of a task that has no value to return."""


class TaskFailed(TaskError):
    """The last attempt raised, and the original exception cannot be rebuilt here.

    The message holds the original type and text; its traceback is in the notes.
    """


class TaskTimeout(TaskError, TimeoutError):
    """An attempt ran longer than the task's ``timeout``."""


class TaskCancelled(TaskError):
    """The task was cancelled, or a task that it depends on did not succeed."""


class TaskExpired(TaskError):
    """The task was not started within its ``ttl``."""


class WorkerLost(TaskError):
    """The worker, or the process that ran the task, died while it ran."""


class ResultExpired(TaskError):
    """The task succeeded, but its result is no longer stored."""


class QueryError(OmniQError):
    """A query is wrong, or is more than one statement that reads. DuckDB's words, if it spoke."""


class UnknownTask(OmniQError, LookupError):
    """No task, schedule or batch of that name is known."""


class WaitTimeout(OmniQError, TimeoutError):
    """Waiting took longer than its ``timeout``. The work goes on."""
