"""Attempts in threads of this process: no start-up, no copies, one core for Python code."""

from contextlib import ExitStack
from typing import ClassVar, Self

from omniq_nb.core.capture import capturing
from omniq_nb.core.executors.slots import Slot, SlotExecutor
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

    def _slot(self) -> "_ThreadSlot":
        return _ThreadSlot()


class _ThreadSlot(Slot):
    """The slot thread itself."""

    def __init__(self) -> None:
        super().__init__()
        self._coroutines = Coroutines()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Until the thread ends, so that an abandoned function does not print into the notebook
        # after its worker is gone.
        self._stack.enter_context(capturing())
        self._stack.enter_context(self._coroutines)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Nothing to prepare."""

    def run(self, attempt: Attempt) -> Outcome:
        """Make the attempt here."""
        return attempt.run(self._coroutines)
