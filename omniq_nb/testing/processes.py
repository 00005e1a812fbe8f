"""Real processes that work on a store, and can be killed, stopped and resumed.

A child opens one store and then does what it is told, one order after the other. Orders may be
sent ahead: the child is then busy whenever it dies.

Children are forked from a process that has imported what stores need and does nothing else (a
"fork server"; it knows nothing of the test): importing anew would cost each child a second, which
is most of what many of them do.
"""

import asyncio
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache, partial
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, Self

from omniq_nb.models.task import LIVE, Settle, State
from omniq_nb.storage.base import Store, TaskQueue
from omniq_nb.testing.places import Recipe

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext  # Windows has none

Order = str | Callable[..., Coroutine[Any, Any, Any]]
"""A method of the store, or a module-level coroutine function that is given the store."""

IMPORTED = (
    __name__,
    "omniq_nb.storage.file",
    "omniq_nb.storage.sql",
    "omniq_nb.storage.objects.results",
    "omniq_nb.storage.objects.events",
    "omniq_nb.storage.buckets",
    *("adlfs", "asyncpg", "gcsfs", "nats", "redis.asyncio", "s3fs"),
)
"""What children find imported. Whatever is not installed is passed over."""

PATIENCE = 120.0
"""Seconds after which a silent child is a failure. Only a hang ever waits so long."""


@cache
def _forking() -> "ForkServerContext":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


class Died(Exception):
    """The child is dead, and has said all that it had to say."""


class Process:
    """A child process with its own handle on a place, open.

    Parameters
    ----------
    recipe : Recipe
        The place.
    component : str
        The method of the place that gives the store.
    """

    def __init__(self, recipe: Recipe, component: str) -> None:
        ours, theirs = Pipe()
        self._child = _forking().Process(target=main, args=(theirs, dict(os.environ)), daemon=True)
        self._child.start()
        theirs.close()
        self._pipe = ours
        self._pipe.send((recipe, component))

    def start(self, order: Order, *arguments: object) -> None:
        """Send an order, and do not wait."""
        self._pipe.send((order, arguments))

    def answer(self) -> Any:
        """Wait for the outcome of the earliest order that has not been answered.

        Raises
        ------
        Died
            The child died before it answered.
        AssertionError
            The order raised, or the child is silent.
        """
        try:
            assert self._pipe.poll(PATIENCE), "the child process hangs"
            succeeded, outcome = self._pipe.recv()
        except (EOFError, OSError) as error:  # the last message may be there in part
            raise Died from error
        assert succeeded, f"in the child process: {outcome}"
        return outcome

    def run(self, order: Order, *arguments: object) -> Any:
        """Send an order and wait for its outcome."""
        self.start(order, *arguments)
        return self.answer()

    def kill(self) -> None:
        """End it at once, whatever it is doing (``kill -9``)."""
        self._child.kill()
        self._child.join()

    def last_words(self) -> list[Any]:
        """Give the answers that a killed child had sent and nobody has read."""
        answers = []
        with suppress(Died):
            while True:
                answers.append(self.answer())
        return answers

    def stop(self) -> None:
        """Freeze it, as a closed laptop lid would."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen child go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._child.pid is not None
        os.kill(self._child.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._pipe.close()


def main(pipe: Connection, environment: dict[str, str]) -> None:
    """Be the child: follow the orders that come through the pipe until it is closed."""
    os.environ.clear()
    os.environ.update(environment)
    recipe, component = pipe.recv()
    store = getattr(recipe.place(), component)()
    with asyncio.Runner() as runner:
        runner.run(store.open())
        while True:
            try:
                order, arguments = pipe.recv()
            except EOFError:
                return
            try:
                bound = getattr(store, order) if isinstance(order, str) else partial(order, store)
                answer = pickle.dumps((True, runner.run(bound(*arguments))))
            except Exception:
                answer = pickle.dumps((False, traceback.format_exc()))
            pipe.send_bytes(answer)


async def drain(queue: TaskQueue, worker: str, limit: int) -> list[str]:
    """Claim and settle until no task of the queue is left; the ids settled, as acknowledged."""
    settled: list[str] = []
    while True:
        tasks = await queue.claim(["default"], limit, 60.0, worker)
        outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in tasks]
        accepted = await queue.settle(outcomes)
        settled += [task.id for task, ok in zip(tasks, accepted, strict=True) if ok]
        if not tasks:
            counts = await queue.counts()
            if not any(number for (_, state), number in counts.items() if state in LIVE):
                return settled
            await asyncio.sleep(0.01)


async def reopen(store: Store, times: int) -> None:
    """Close and open it, again and again."""
    for _ in range(times):
        await store.close()
        await store.open()
