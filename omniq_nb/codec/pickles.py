"""cloudpickle, with errors that say what could not travel and what to do about it."""

import io
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pickle import PickleBuffer
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import cloudpickle

from omniq_nb.errors import NotSerializable, OmniQError, PayloadError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_DEPTH = 4
_PROTOCOL = 5

Reducer = Callable[[Any], Any]
Beside = Callable[[PickleBuffer], bool]


def _reduce_file(file: io.TextIOWrapper) -> Any:
    if file in (sys.stdout, sys.stderr):
        return _reduce_text_file(file)
    raise TypeError("an open file stays with its process")


_reduce_text_file: Reducer = cloudpickle.Pickler.dispatch_table[io.TextIOWrapper]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    # cloudpickle would read an open text file and send its contents in its stead.
    dispatch_table: ClassVar[ChainMap[type, Reducer]] = ChainMap(
        {io.TextIOWrapper: _reduce_file}, cloudpickle.Pickler.dispatch_table
    )


def _pickled(value: object, beside: Beside | None = None) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=_PROTOCOL, buffer_callback=beside).dump(value)
    return file.getvalue()


def dump(
    value: object,
    what: str,
    parts: Iterable[tuple[str, object]] = (),
    beside: Beside | None = None,
) -> bytes:
    """The value as a pickle.

    Parameters
    ----------
    value : object
        Anything that can be pickled.
    what : str
        What to call it, should it fail.
    parts : iterable of (str, object)
        What to call its parts, if they have names of their own.
    beside : callable, optional
        Is given the data of each array, in order. What it answers False to is not in the pickle:
        `load` wants it back.

    Raises
    ------
    NotSerializable
        It holds something that cannot be pickled; the message names it.
    """
    try:
        return _pickled(value, beside)
    except OmniQError:
        raise  # one of ours says why it stays
    except Exception as error:  # pickling runs the values' own code, which may raise anything
        place, culprit = what, value
        for name, part in parts:
            if not _travels(part):
                place, culprit = _culprit(part, name)
                break
        else:
            place, culprit = _culprit(value, what)
        raise NotSerializable(
            f"{place} cannot travel to a worker: {type(culprit).__module__}."
            f"{type(culprit).__qualname__} cannot be pickled ({error}). Make it inside the "
            f"function, or pass what it is made from: a path, a URL, plain data"
        ) from None


class Weight(NamedTuple):
    """How large a value's pickle is; `exact` is false if it is larger than that."""

    size: int
    exact: bool


def weigh(value: object, what: str, limit: int) -> Weight:
    """How large a value's pickle would be, without making it where that takes long.

    Parameters
    ----------
    value : object
        Anything that can be pickled.
    what : str
        What to call it, should it fail.
    limit : int
        Bytes after which what must be copied is no longer counted.

    Raises
    ------
    NotSerializable
        It holds something that cannot be pickled; the message names it.
    """
    scale = _Scale(limit)
    buffers: list[PickleBuffer] = []  # arrays: counted, not copied
    try:
        _Pickler(scale, protocol=_PROTOCOL, buffer_callback=buffers.append).dump(value)
    except _TooMuch:
        return Weight(scale.size, exact=False)
    except Exception:  # as in `dump`, which says what it was
        dump(value, what)
    return Weight(scale.size + sum(buffer.raw().nbytes for buffer in buffers), exact=True)


class _TooMuch(Exception):
    """The scale has seen enough."""


class _Scale(io.RawIOBase):
    """A file that only counts what is written to it."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit

    def write(self, data: "ReadableBuffer", /) -> int:
        """Count it."""
        size = memoryview(data).nbytes
        self.size += size
        if self.size > self._limit:
            raise _TooMuch
        return size


def load(data: bytes, beside: Sequence[bytes | bytearray] = ()) -> object:
    """The value of a pickle whose signature is verified.

    Parameters
    ----------
    data : bytes
        The pickle.
    beside : sequence of bytes or bytearray
        The data of arrays that is not in it. Arrays whose data is a bytearray can be changed.

    Raises
    ------
    PayloadError
        Something that it needs is missing here.
    """
    try:
        return cloudpickle.loads(data, buffers=beside)
    except Exception as error:  # unpickling runs the values' own code, which may raise anything
        raise PayloadError(
            f"a pickled value cannot be opened here: {type(error).__name__}: {error}. "
            f"The packages must be installed, in the same versions, where it is opened"
        ) from error


def _culprit(value: object, what: str, depth: int = 0) -> tuple[str, object]:
    """The innermost part that cannot be pickled, and where it is."""
    if depth < _DEPTH:
        for name, part in _parts(value):
            if not _travels(part):
                return _culprit(part, f"{name} of {what}", depth + 1)
    return what, value


def _travels(value: object) -> bool:
    try:
        _pickled(value)
    except Exception:  # again: anything
        return False
    return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"{key!r}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {number}", part) for number, part in enumerate(value))
    elif isinstance(value, FunctionType):
        code, variables = value.__code__, value.__globals__
        for name in code.co_names:
            if name in variables:
                yield f"the variable {name!r}", variables[name]
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            if cell != CellType():  # else it has no value yet
                yield f"the variable {name!r}", cell.cell_contents
    elif isinstance(attributes := getattr(value, "__dict__", None), dict):
        yield from ((f"the attribute {name!r}", part) for name, part in attributes.items())
