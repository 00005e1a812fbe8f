"""From a Python call to a `Task`: names, ids, arguments, payload. No I/O.

Runs in the caller's thread, so that pickling errors surface in the cell that caused them.
"""

import inspect
import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from types import FunctionType
from weakref import WeakKeyDictionary

import msgspec

from omniq_nb.codec import Bundles, Codec, arguments_json
from omniq_nb.core.options import TaskOptions
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import Task

Function = Callable[..., object]
Call = tuple[tuple[object, ...], dict[str, object]]


_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def random_id() -> str:
    """A new id that sorts by time of creation, which keeps indexes compact.

    It need not be a secret: its 64 random bits are of a generator that the operating system
    seeded, without a system call for each.
    """
    return f"{int(time.time() * 1000):011x}-{_random.getrandbits(64):016x}"


def derived_id(kind: str, *parts: str | bytes) -> str:
    """An id that the same parts always give."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"{kind}-{digest.hexdigest()}"


def function_name(function: Function) -> str:
    """How a function is called in tables: ``package.module.name``, or ``name`` in a notebook."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        wrapped = getattr(function, "func", None)  # functools.partial
        return function_name(wrapped) if callable(wrapped) else type(function).__qualname__
    name = name.rpartition("<locals>.")[2]
    module = getattr(function, "__module__", None)
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


def plain_function(function: Function) -> Function:
    """The user's function below our decorator."""
    if not callable(function):
        raise ConfigError("function", function, "something callable")
    return getattr(function, "__omniq_function__", function)


_signatures: "WeakKeyDictionary[FunctionType, inspect.Signature]" = WeakKeyDictionary()


def check_arguments(
    function: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
    """Refuse a call that Python itself would refuse, here and not at the worker.

    Only functions written in Python are looked at, as they are and not as a decorator's
    ``__wrapped__`` says: a decorator may supply arguments of its own.

    Raises
    ------
    ConfigError
        An argument is missing, unknown, given twice or one too many.
    """
    if not isinstance(function, FunctionType):
        return
    code = function.__code__
    needed = code.co_argcount - len(function.__defaults__ or ())
    if not kwargs and not code.co_kwonlyargcount and needed <= len(args) <= code.co_argcount:
        return  # the common case, without the cost of a signature
    signature = _signatures.get(function)
    if signature is None:
        signature = inspect.signature(function, follow_wrapped=False)
        _signatures[function] = signature
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        # No values: one may be a secret.
        given = ", ".join(["..."] * len(args) + [f"{name}=..." for name in kwargs])
        name = function_name(function)
        raise ConfigError(
            f"arguments of {name}", f"({given})", f"{name}{signature}; {error}"
        ) from None


class Submission:
    """Makes tasks of calls.

    Parameters
    ----------
    codec : Codec
        Packs and signs the calls.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def task(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        options: TaskOptions,
        task_id: str | None = None,
        bundles: Bundles | None = None,
    ) -> Task:
        """One task for one call. What is large goes into `bundles`, unless there are none."""
        function = plain_function(function)
        check_arguments(function, args, kwargs)
        packed = self._codec.pack_function(function, bundles)
        name = options.name or function_name(function)
        if task_id is None:
            task_id = derived_id("key", name, options.key) if options.key else random_id()
        common, call = _common(name, options), (args, dict(kwargs))
        return self._task(common, function, packed, call, task_id, bundles)

    def template(
        self,
        schedule_id: str,
        function: Function,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        options: TaskOptions,
    ) -> Task:
        """The task that a schedule copies at each fire time, signed for the schedule alone.

        It holds all that it needs: no queue knows which bundles a schedule will need.
        """
        task = self.task(function, args, kwargs, options, task_id=schedule_id)
        task.call = self._codec.rebind(
            task.call, old=f"call:{schedule_id}", new=f"schedule:{schedule_id}"
        )
        return task

    def batch(
        self,
        name: str | None,
        function: Function,
        calls: Iterable[Call],
        options: TaskOptions,
        bundles: Bundles,
    ) -> tuple[str, list[Task]]:
        """Tasks for many calls of one function, and the batch's name. What is large: `bundles`.

        In a named batch the same call has the same id each time, so that what is already
        known is not enqueued again. Equal calls within one batch are told apart by number.
        """
        function = plain_function(function)
        calls = list(calls)
        packed = self._codec.pack_function(function, bundles, len(calls))
        task_name = options.name or function_name(function)
        unique = random_id()
        batch = name or f"{task_name.rpartition('.')[2]}-{unique}"
        common = _common(task_name, options, batch)
        tasks = []
        seen: dict[str, int] = {}
        checked: object = None
        for position, call in enumerate(calls):
            args, kwargs = call
            # Whether a call can work depends on nothing else.
            if (shape := (len(args), *kwargs)) != checked:
                check_arguments(function, args, kwargs)
                checked = shape
            constants = self._codec.share_constants(kwargs, bundles) if kwargs else {}
            if name is None:
                task_id = f"{unique}-{position:06x}"  # rising, which indexes like
            else:
                # A bundle's name says what is in it, and is packed sooner.
                known = [(key, constants.get(key, value)) for key, value in kwargs.items()]
                content = self._codec.encode((args, sorted(known)), context="batch")
                task_id = derived_id("batch", batch, task_name, content)
                seen[task_id] = number = seen.get(task_id, 0) + 1
                if number > 1:
                    task_id = f"{task_id}-{number}"
            tasks.append(
                self._task(common, function, packed, call, task_id, bundles, constants, position)
            )
        return batch, tasks

    def _task(
        self,
        common: Task,
        function: Function,
        packed: bytes,
        call: Call,
        task_id: str,
        bundles: Bundles | None,
        constants: Mapping[str, str] | None = None,
        position: int = 0,
    ) -> Task:
        """One task for one call: what it has in common with others, and its own."""
        args, kwargs = call
        encoded = self._codec.encode_call(
            packed,
            args,
            kwargs,
            context=f"call:{task_id}",
            bundles=bundles,
            constants=constants,
        )
        # Most fields are the same for all tasks of a batch: to copy these is five times quicker.
        return msgspec.structs.replace(
            common,
            id=task_id,
            call=encoded,
            bundles=self._codec.bundles_of(encoded) if bundles and bundles.payloads else (),
            arguments=arguments_json(function, args, kwargs),
            position=position,
        )


def _common(name: str, options: TaskOptions, batch: str | None = None) -> Task:
    """What tasks of one function have in common that are submitted now. It has no id yet."""
    now = time.time()
    return Task(
        id="",
        name=name,
        batch=batch,
        queue=options.queue,
        priority=options.priority,
        tags=options.tags,
        metadata=options.metadata,
        created_at=now,
        available_at=now + options.delay if options.eta is None else options.eta,
        expires_at=None if options.ttl is None else now + options.ttl,
        timeout=options.timeout,
        result_ttl=options.result_ttl,
        retry=options.retry,
        depends_on=options.after,
    )


def grid(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[Call]:
    """The calls that ``map(function, *args, **kwargs)`` means.

    Positional arguments are iterables that are walked together, as in Python's ``map``.
    Keyword arguments that are lists, tuples, ranges, sets or other iterables are axes of a
    grid, of which every combination is called, the last axis turning fastest; strings, bytes,
    mappings, data frames and everything else that is not a plain iterable are constants.

    Examples
    --------
    >>> [kwargs for _, kwargs in grid((), {"lr": [0.1, 0.2], "depth": (2, 4), "seed": 7})]
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'lr': 0.1, 'depth': 2, 'seed': 7}, {'lr': 0.1, 'depth': 4, 'seed': 7},
     {'lr': 0.2, 'depth': 2, 'seed': 7}, {'lr': 0.2, 'depth': 4, 'seed': 7}]
    >>> [args for args, _ in grid((range(3), "abc"), {})]
    [(0, 'a'), (1, 'b'), (2, 'c')]
    """
    for position, column in enumerate(args):
        if not isinstance(column, Iterable):
            raise ConfigError(
                f"argument {position} of map",
                column,
                "an iterable of values, one for each task; "
                "give a constant by keyword or with functools.partial",
            )
    axes = [list(_axis(value)) for value in kwargs.values()]
    rows: Iterable[tuple[object, ...]] = zip(*args, strict=False) if args else [()]
    for row in rows:
        if not axes:
            yield row, {}
            continue
        for combination in itertools.product(*axes):
            yield row, dict(zip(kwargs, combination, strict=True))


def _axis(value: object) -> Iterable[object]:
    """The values that a keyword argument of `map` stands for."""
    constant = isinstance(value, str | bytes | bytearray | Mapping)
    # A data frame iterates over its column names, which nobody means.
    if constant or not isinstance(value, Iterable) or getattr(value, "ndim", 1) != 1:
        return [value]
    return value
