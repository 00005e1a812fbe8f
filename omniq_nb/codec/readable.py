"""Values and arguments as JSON: for tables, queries and people. Never to rebuild them from."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from pathlib import PurePath
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

VALUE_LIMIT = 65_536
ARGUMENTS_LIMIT = 16_384
"""Bytes of JSON that are kept of a value, and of all arguments of a call."""

_DEPTH = 20
_PLAIN = frozenset({type(None), bool, int, str})
_ATOMS = _PLAIN | {float}
_encoder = msgspec.json.Encoder()


class _NoJson(Exception):
    """The value has no JSON worth keeping."""


def type_name(value: object) -> str:
    """``module.QualName`` of a value's type; without module if it is built in."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def to_json(value: object, limit: int = VALUE_LIMIT) -> str | None:
    """A value as JSON.

    Numbers that JSON lacks (NaN, infinities) become null. Arrays of numpy become lists, data
    classes and the like become objects.

    Parameters
    ----------
    value : object
        Anything.
    limit : int
        Bytes of JSON that are worth keeping.

    Returns
    -------
    str or None
        None if there is no natural JSON, or too much of it.
    """
    try:
        encoded = _encoder.encode(_natural(value, limit, 0))
    except Exception:  # reading a value's attributes runs its own code, which may raise anything
        return None
    return encoded.decode() if len(encoded) <= limit else None


def arguments_json(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> str:
    """The arguments of a call by parameter name, as a JSON object.

    What has no JSON, or too much, is described: ``"<pandas.DataFrame 100x3>"``.
    """
    named = _named(function, args, kwargs)
    if _ATOMS.issuperset(map(type, named.values())):
        # The common case in one step: `to_json` would come to the same.
        try:
            text = _encoder.encode(named)
        except (UnicodeEncodeError, OverflowError):
            pass
        else:
            if len(text) <= ARGUMENTS_LIMIT:
                return text.decode()
    parts = {name: to_json(value, ARGUMENTS_LIMIT) for name, value in named.items()}
    described = {
        name: msgspec.json.encode(_described(named[name])).decode() if part is None else part
        for name, part in parts.items()
    }
    while sum(map(len, described.values())) > ARGUMENTS_LIMIT:
        longest = max(described, key=lambda name: len(described[name]))
        short = msgspec.json.encode(_described(named[longest])).decode()
        if len(short) >= len(described[longest]):
            return "{}"  # thousands of arguments: nobody reads them in a table
        described[longest] = short
    return "{" + ",".join(f"{_key(name)}:{part}" for name, part in described.items()) + "}"


def _key(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _described(value: object) -> str:
    try:
        shape = getattr(value, "shape", None)
    except Exception:  # a property of the user's, which may raise anything
        shape = None
    if isinstance(shape, tuple) and all(isinstance(length, int) for length in shape):
        return f"<{type_name(value)} {'x'.join(map(str, shape))}>"
    return f"<{type_name(value)}>"


# ---------------------------------------------------------------- names of arguments

_signatures: "WeakKeyDictionary[object, inspect.Signature | None]" = WeakKeyDictionary()


def _named(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Mapping[str, object]:
    if not args:
        return kwargs
    if isinstance(function, FunctionType):
        code = function.__code__
        if len(args) <= code.co_argcount:
            # The common case, without the cost of a signature.
            named = dict(zip(code.co_varnames, args, strict=False))
            return {**named, **kwargs} if kwargs else named
    signature = _signature(function)
    if signature is not None:
        try:
            bound = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            bound = {}
        if bound:
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD and parameter.name in bound:
                    bound |= bound.pop(parameter.name)
            return dict(bound)
    return {**{f"arg{number}": value for number, value in enumerate(args)}, **kwargs}


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return _signatures[function]
    except (KeyError, TypeError):
        pass
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None  # some builtins have none
    try:
        _signatures[function] = signature
    except TypeError:
        return signature  # cannot be referred to weakly
    return signature


# ---------------------------------------------------------------- natural JSON


def _natural(value: Any, limit: int, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > _DEPTH:
        raise _NoJson
    if isinstance(value, Mapping):
        if len(value) > limit:
            raise _NoJson
        return {_word(key): _natural(item, limit, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        if len(value) > limit:
            raise _NoJson
        return [_natural(item, limit, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        raise _NoJson
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):  # pandas has its own; its NaT differs from itself
        return value.isoformat() if value == value else None
    if is_dataclass(value) and not isinstance(value, type):
        fields = value.__dataclass_fields__
        return {name: _natural(getattr(value, name), limit, depth + 1) for name in fields}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _natural(value.item(), limit, depth + 1) if value.dtype.kind in "biufUmM" else _no()
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.size * 2 > limit or value.dtype.kind not in "biufU":
            raise _NoJson
        return _natural(value.tolist(), limit, depth + 1)
    # Dates, times, UUIDs, decimals, enumerations, msgspec and attrs objects.
    return _natural(msgspec.to_builtins(value), limit, depth + 1)


def _no() -> Any:
    raise _NoJson


def _word(key: object) -> str:
    if isinstance(key, str):
        return str(key)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(key, numpy.generic):
        key = key.item()
    if isinstance(key, int | float):
        return repr(key)
    raise _NoJson
