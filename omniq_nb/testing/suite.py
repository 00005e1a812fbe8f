"""What all suites share: their fixtures, and ways to run what a store does."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar, TypeVar

import pytest

from omniq_nb.storage.base import Store
from omniq_nb.testing.places import Place, Recipe
from omniq_nb.testing.processes import Process, reopen

AnyStore = TypeVar("AnyStore", bound=Store)
Answer = TypeVar("Answer")
StartProcesses = Callable[[int], list[Process]]


@asynccontextmanager
async def opened(store: AnyStore) -> AsyncIterator[AnyStore]:
    """Open a store, and close it whatever happens."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(
    condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0, pause: float = 0.02
) -> Any:
    """Ask again and again until the answer is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        assert time.monotonic() < deadline, f"{what}: still not so after {seconds} seconds"
        await asyncio.sleep(pause)
    return answer


def drive(operation: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a method of an immediate store with no event loop."""
    try:
        operation.send(None)
    except StopIteration as finished:
        answer: Answer = finished.value
        return answer
    operation.close()
    raise AssertionError("an immediate store suspended")


def in_threads(count: int, work: Callable[[int], Answer]) -> list[Answer]:
    """Run `work(number)` in so many threads, all at the same moment."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Answer:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


class Suite:
    """The fixtures of all suites. A backend overrides `new_recipe`."""

    component: ClassVar[str]
    """The method of `Place` that gives the store under test."""

    @pytest.fixture
    def new_recipe(self) -> Callable[[], Recipe]:
        """Give a function that returns the recipe of another empty place at each call."""
        raise NotImplementedError("override the fixture new_recipe")

    @pytest.fixture
    def recipe(self, new_recipe: Callable[[], Recipe]) -> Recipe:
        """Give one empty place."""
        return new_recipe()

    @pytest.fixture
    def place(self, recipe: Recipe) -> Place:
        """Give this test's own handle."""
        return recipe.place()

    @pytest.fixture
    def shared(self, recipe: Recipe) -> Recipe:
        """Give the place to a test that needs more than one handle on it."""
        if recipe.private:
            pytest.skip(f"never: {recipe.private}")
        return recipe

    @pytest.fixture
    def start(self, shared: Recipe) -> Iterator[StartProcesses]:
        """Give a function that starts so many processes, each with its own open handle."""
        with ExitStack() as stack:
            yield lambda count: [
                stack.enter_context(Process(shared, self.component)) for _ in range(count)
            ]

    @pytest.fixture
    def reopenings(self) -> int:
        """How often each of several processes opens a store: less where that takes requests."""
        return 150

    def test_processes_open_and_close_it_at_the_same_time(
        self, start: StartProcesses, reopenings: int
    ) -> None:
        processes = start(3)
        for process in processes:
            process.start(reopen, reopenings)
        for process in processes:
            process.answer()
