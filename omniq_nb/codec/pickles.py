"""cloudpickle, with errors that say what could not travel and what to do about it."""

from collections.abc import Iterator

import cloudpickle

from omniq_nb.errors import NotSerializable, OmniQError, PayloadError

_DEPTH = 4


def dump(value: object, what: str) -> bytes:
    """The value as a pickle.

    Raises
    ------
    NotSerializable
        It holds something that cannot be pickled; the message names it.
    """
    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except OmniQError:
        raise  # one of ours says why it stays
    except Exception as error:  # pickling runs the values' own code, which may raise anything
        place, culprit = _culprit(value, what)
        raise NotSerializable(
            f"{place} cannot travel to a worker: {type(culprit).__module__}."
            f"{type(culprit).__qualname__} cannot be pickled ({error}). Make it inside the "
            f"function, or pass what it is made from: a path, a URL, plain data"
        ) from None
    return data


def load(data: bytes) -> object:
    """The value of a pickle whose signature is verified.

    Raises
    ------
    PayloadError
        Something that it needs is missing here.
    """
    try:
        return cloudpickle.loads(data)
    except Exception as error:  # unpickling runs the values' own code, which may raise anything
        raise PayloadError(
            f"a pickled value cannot be opened here: {type(error).__name__}: {error}. "
            f"The packages must be installed, in the same versions, where it is opened"
        ) from error


def _culprit(value: object, what: str, depth: int = 0) -> tuple[str, object]:
    """The innermost part that cannot be pickled, and where it is."""
    if depth < _DEPTH:
        for name, part in _parts(value):
            try:
                cloudpickle.dumps(part)
            except Exception:  # again: anything
                return _culprit(part, f"{name} of {what}", depth + 1)
    return what, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"{key!r}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {number}", part) for number, part in enumerate(value))
    elif closure := getattr(value, "__closure__", None):
        names = getattr(getattr(value, "__code__", None), "co_freevars", ())
        for name, cell in zip(names, closure, strict=False):
            yield f"the variable {name!r}", cell.cell_contents
    elif code := getattr(value, "__code__", None):
        variables = getattr(value, "__globals__", {})
        for name in code.co_names:
            if name in variables:
                yield f"the variable {name!r}", variables[name]
    elif isinstance(attributes := getattr(value, "__dict__", None), dict):
        yield from ((f"the attribute {name!r}", part) for name, part in attributes.items())
