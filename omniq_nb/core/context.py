"""What a running task can know about itself and say about its progress.

Not here: running it (`omniq_nb.core.run`), and what it prints (`omniq_nb.core.capture`).
"""

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import msgspec

from omniq_nb.errors import TaskCancelled
from omniq_nb.models.task import Task

if TYPE_CHECKING:
    from omniq_nb.core.run import Attempt

Reason = Literal["cancelled", "timeout", "lost"]
"""Why an attempt is asked to end: by hand, its time is over, or another worker has its task."""

REASONS: dict[Reason, str] = {
    "cancelled": "cancelled",
    "timeout": "ran longer than its timeout",
    "lost": "its worker lost the lease or was stopped",
}
"""The same in words, as the message of `TaskCancelled`."""

CURRENT: "ContextVar[Attempt | None]" = ContextVar("omniq_nb.attempt", default=None)
"""The attempt that the current thread or coroutine belongs to."""


class Progress(msgspec.Struct, tag=True):
    """What a task said of how far it is."""

    task: Task
    done: float
    total: float | None = None
    message: str | None = None


class CurrentTask:
    """The running task, seen from inside. `current_task` gives it.

    Parameters
    ----------
    attempt : Attempt
        What is under way.
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: "Attempt") -> None:
        self._attempt = attempt

    def __repr__(self) -> str:
        return f"<CurrentTask {self.name} {self.id!r}, attempt {self.attempt}>"

    @property
    def id(self) -> str:
        """The task's id."""
        return self._attempt.task.id

    @property
    def name(self) -> str:
        """The function's qualified name, or what the user calls the task."""
        return self._attempt.task.name

    @property
    def attempt(self) -> int:
        """1 for the first attempt, 2 for the first retry."""
        return self._attempt.task.attempt

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._attempt.task.queue

    @property
    def batch(self) -> str | None:
        """The batch that it is part of."""
        return self._attempt.task.batch

    @property
    def arguments(self) -> dict[str, object]:
        """The arguments by name, as tables show them: what JSON cannot hold is described."""
        arguments: dict[str, object] = json.loads(self._attempt.task.arguments)
        return arguments

    @property
    def metadata(self) -> dict[str, object]:
        """What the user attached."""
        metadata: dict[str, object] = json.loads(self._attempt.task.metadata)
        return metadata

    @property
    def cancelled(self) -> bool:
        """Whether the work is in vain: it was cancelled, timed out, or is another worker's now."""
        return self._attempt.reason is not None

    def check(self) -> None:
        """End here if the work is in vain. Call it now and then in long loops.

        Raises
        ------
        TaskCancelled
            `cancelled` is true.
        """
        if self._attempt.reason is not None:
            raise TaskCancelled(REASONS[self._attempt.reason])

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the work is. Cheap: what nobody saw before the next call is skipped.

        Parameters
        ----------
        done : float
            How much is done, in any unit.
        total : float, optional
            How much there is to do, in the same unit.
        message : str, optional
            One line for people.
        """
        attempt = self._attempt
        if not attempt.over:
            attempt.report(
                Progress(
                    attempt.task,
                    float(done),
                    None if total is None else float(total),
                    None if message is None else str(message),
                )
            )


def current_task() -> CurrentTask | None:
    """Give the task that runs this code, or None outside of a task.

    It is known in the thread or coroutine that runs the task and in what inherits its context:
    coroutines, ``asyncio.to_thread``. A bare ``threading.Thread`` does not before Python 3.14:
    give it ``contextvars.copy_context().run`` as its target.
    """
    attempt = CURRENT.get()
    return None if attempt is None else CurrentTask(attempt)
