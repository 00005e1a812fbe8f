"""Decorated functions: still plain functions, with `submit`, `map` and `options` beside.

Not here: the blocking twin (`omniq_nb.sync`).
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec, Protocol, TypeVar, Unpack

from omniq_nb.core.handle import AsyncBatch, AsyncHandle
from omniq_nb.core.options import Options, TaskOptions
from omniq_nb.core.submission import plain_function

P = ParamSpec("P")
R = TypeVar("R")


class DecoratedFunction(Generic[P, R]):
    """A user's function and the options with which it is submitted.

    Calling it calls the function, here and now.

    Parameters
    ----------
    function : callable
        The user's function.
    options : TaskOptions
        With which it is submitted.
    """

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        self.__omniq_function__ = plain_function(function)
        self.task_options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now: nothing is enqueued."""
        return self.__omniq_function__(*args, **kwargs)  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        # A task whose code names a decorated function takes the function along, not the client.
        return plain_function, (self.__omniq_function__,)

    def __repr__(self) -> str:
        return f"<task {getattr(self, '__qualname__', self.__omniq_function__)}>"


def options_of(function: Callable[..., object], defaults: TaskOptions) -> TaskOptions:
    """The options of a decorated function, or the defaults."""
    options = getattr(function, "task_options", None)
    return options if isinstance(options, TaskOptions) else defaults


class AsyncSubmitter(Protocol):
    """What a decorated function needs of its client."""

    def submit(
        self, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Awaitable[AsyncHandle[object]]:
        """Enqueue one call."""

    def map(
        self,
        function: Callable[..., object],
        /,
        *columns: object,
        name: str | None = None,
        **axes: object,
    ) -> Awaitable[AsyncBatch[object]]:
        """Enqueue many calls."""


class AsyncTaskFunction(DecoratedFunction[P, R]):
    """A function decorated with ``@oq.task`` of an `AsyncOmniQ`.

    Parameters
    ----------
    client : AsyncOmniQ
        Where it is submitted.
    function, options
        See `DecoratedFunction`.
    """

    def __init__(
        self, client: AsyncSubmitter, function: Callable[P, R], options: TaskOptions
    ) -> None:
        super().__init__(function, options)
        self._client = client

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncHandle[R]:
        """Enqueue one call. See ``AsyncOmniQ.submit``."""
        return await self._client.submit(self, *args, **kwargs)  # type: ignore[return-value]

    async def map(self, *columns: object, name: str | None = None, **axes: object) -> AsyncBatch[R]:
        """Enqueue many calls. See ``AsyncOmniQ.map``."""
        return await self._client.map(self, *columns, name=name, **axes)  # type: ignore[return-value]

    def options(self, **options: Unpack[Options]) -> "AsyncTaskFunction[P, R]":
        """The same function, submitted with other options."""
        changed = self.task_options.updated(**options)
        return AsyncTaskFunction(self._client, self.__omniq_function__, changed)  # type: ignore[arg-type]
