"""Attempts in threads of this process: no start-up, no copies, one core for Python code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from omniq_nb.core.capture import capturing
from omniq_nb.core.executors.slots import SlotExecutor
from omniq_nb.core.run import Attempt, Coroutines, Outcome


class ThreadExecutor(SlotExecutor):
    """Runs each attempt in a slot thread; coroutines on that thread's own event loop.

    A thread cannot be ended from outside. A function that is cancelled goes on until it looks
    at ``current_task().cancelled``. One that takes too long goes on in the background, and
    what it returns is thrown away. Coroutines are cancelled for real.
    """

    kind: ClassVar[str] = "thread"
    kills: ClassVar[bool] = False
    advice: ClassVar[str] = (
        "; its thread goes on until the function returns: use process workers to stop it for real"
    )

    @contextmanager
    def _slot(self) -> Iterator["_ThreadSlot"]:
        # Left only when the thread ends, so that an abandoned function does not print into
        # the notebook after its worker is gone.
        with capturing(), Coroutines() as coroutines:
            yield _ThreadSlot(coroutines)


class _ThreadSlot:
    def __init__(self, coroutines: Coroutines) -> None:
        self._coroutines = coroutines

    def prepare(self) -> None:
        """Nothing to prepare."""

    def run(self, attempt: Attempt) -> Outcome:
        return attempt.run(self._coroutines)
