"""Plain data as msgpack that comes back exactly as it was, type for type.

msgpack knows None, bool, 64-bit int, float, str, bytes, list, and dict with str keys. The other
plain types travel as numbered extensions. msgspec would also take what it cannot give back, a
namedtuple or an IntEnum say, so every value's exact type is looked at first; for flat lists and
dicts that happens at C speed. Whatever has no faithful form raises `NotPlain`.

As in JSON, two references to one list become two lists.

Not here: data frames and Arrow tables as such (`omniq_nb.codec.frames`).
"""

import datetime as dt
import struct
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from omniq_nb.codec import frames

if TYPE_CHECKING:
    import numpy as np

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""Exact types that msgpack gives back as they were, an int if it fits into 64 bits."""

_SCALARS_BUT_INT = SCALARS - {int}
_STR = frozenset({str})

# Extension numbers. They are stored: a number keeps its meaning for ever.
_TUPLE, _SET, _FROZENSET, _DICT, _INT, _BYTEARRAY, _COMPLEX = 1, 2, 3, 4, 5, 6, 7
_DATE, _TIME, _DATETIME, _TIMEDELTA, _DECIMAL, _UUID = 8, 9, 10, 11, 12, 13
_SCALAR, _ARRAY, _FRAME = 14, 15, 16

_NUMPY_KINDS = frozenset("?bhilqBHILQefdFDMm")
_LENGTH = struct.Struct(">I")

_encoder = msgspec.msgpack.Encoder()


class NotPlain(Exception):
    """The value, or something in it, has no faithful form as plain data."""


def encode(value: object) -> bytes:
    """Plain data as msgpack.

    Raises
    ------
    NotPlain
        Some part of it would not come back as it was.
    """
    try:
        try:
            return _encoder.encode(_shape(value, SCALARS))
        except OverflowError:  # an int beyond 64 bits: look at each
            return _encoder.encode(_shape(value, _SCALARS_BUT_INT))
    except (ValueError, RecursionError) as error:  # lone surrogates, over 4 GB, cycles
        raise NotPlain(str(error)) from None


def encode_flat(value: object) -> bytes | None:
    """The fast path of `encode` for containers of `SCALARS`: None if it has to be taken after all."""
    try:
        return _encoder.encode(value)
    except (OverflowError, ValueError):
        return None


def decode(body: bytes | memoryview) -> Any:
    """The reverse of `encode`."""
    return _decoder.decode(body)


def frame_body(value: object) -> bytes | None:
    """A data frame or Arrow table as bytes; None if `value` is none, or has no faithful form."""
    parts = frames.take_apart(value)
    if parts is None:
        return None
    try:
        header = encode(parts.header)
    except NotPlain:
        return None
    return b"".join((_LENGTH.pack(len(header)), header, parts.body))


def frame_from(body: memoryview) -> object:
    """The reverse of `frame_body`."""
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    return frames.put_together(decode(body[_LENGTH.size : start]), body[start:])


# ------------------------------------------------------------------ to msgpack


def _shape(value: Any, native: frozenset[type]) -> object:
    """`value` in terms of what msgpack gives back as it was; `native` types pass as they are."""
    kind = type(value)
    if kind in native:
        return value
    if kind is list:
        if native.issuperset(map(type, value)):
            return value
        return [_shape(item, native) for item in value]
    if kind is dict:
        if not _STR.issuperset(map(type, value)):
            flat = [part for pair in value.items() for part in pair]
            return _nested(_DICT, flat, native)
        if native.issuperset(map(type, value.values())):
            return value
        return {key: _shape(item, native) for key, item in value.items()}
    shape = _SHAPES.get(kind)
    if shape is not None:
        return shape(value, native)
    if kind.__module__ == "numpy":
        return _shape_numpy(value)
    frame = frame_body(value)
    if frame is None:
        raise NotPlain(f"{kind.__module__}.{kind.__qualname__}")
    return Ext(_FRAME, frame)


def _nested(code: int, items: Iterable[object], native: frozenset[type]) -> Ext:
    return Ext(code, _encoder.encode([_shape(item, native) for item in items]))


def _shape_int(value: int, native: frozenset[type]) -> int | Ext:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _zone(tzinfo: dt.tzinfo | None) -> object:
    """A time zone as its name, or as what makes a fixed offset."""
    if tzinfo is None:
        return None
    if type(tzinfo) is dt.timezone:
        offset = tzinfo.utcoffset(None) // dt.timedelta(microseconds=1)
        given_name = len(tzinfo.__getinitargs__()) == 2  # type: ignore[attr-defined]
        return [offset, tzinfo.tzname(None) if given_name else None]
    if type(tzinfo) is ZoneInfo and tzinfo.key:
        return tzinfo.key
    raise NotPlain("a time zone that is neither a ZoneInfo nor a fixed offset")


def _shape_time(value: dt.time, native: frozenset[type]) -> Ext:
    naive = value.replace(tzinfo=None).isoformat()
    return Ext(_TIME, _encoder.encode([naive, value.fold, _zone(value.tzinfo)]))


def _shape_datetime(value: dt.datetime, native: frozenset[type]) -> Ext:
    naive = value.replace(tzinfo=None).isoformat()
    return Ext(_DATETIME, _encoder.encode([naive, value.fold, _zone(value.tzinfo)]))


def _shape_timedelta(value: dt.timedelta, native: frozenset[type]) -> Ext:
    return Ext(_TIMEDELTA, _encoder.encode([value.days, value.seconds, value.microseconds]))


def _shape_uuid(value: UUID, native: frozenset[type]) -> Ext:
    if value.is_safe is not SafeUUID.unknown:
        raise NotPlain("a UUID that knows how it was made")
    return Ext(_UUID, value.bytes)


_SHAPES: dict[type, Callable[[Any, frozenset[type]], object]] = {
    int: _shape_int,
    tuple: lambda value, native: _nested(_TUPLE, value, native),
    set: lambda value, native: _nested(_SET, value, native),
    frozenset: lambda value, native: _nested(_FROZENSET, value, native),
    bytearray: lambda value, native: Ext(_BYTEARRAY, value),
    complex: lambda value, native: Ext(_COMPLEX, struct.pack(">dd", value.real, value.imag)),
    dt.date: lambda value, native: Ext(_DATE, value.isoformat().encode()),
    dt.time: _shape_time,
    dt.datetime: _shape_datetime,
    dt.timedelta: _shape_timedelta,
    Decimal: lambda value, native: Ext(_DECIMAL, str(value).encode()),
    UUID: _shape_uuid,
}


def _shape_numpy(value: Any) -> Ext:
    """A scalar or an array, if its dtype's short name says all about it."""
    import numpy as np

    kind = type(value)
    dtype = getattr(value, "dtype", None)
    array = kind is np.ndarray
    if not isinstance(dtype, np.dtype) or not (array or isinstance(value, np.generic)):
        raise NotPlain(f"numpy.{kind.__qualname__}")
    # Two C types may share a size (`l` and `q`); a scalar forgets the zeros at a string's end.
    kinds = _NUMPY_KINDS | {"U", "S"} if array else _NUMPY_KINDS
    if dtype.char not in kinds or np.dtype(dtype.str).char != dtype.char or dtype.metadata:
        raise NotPlain(f"numpy dtype {dtype!r}")
    if not array:
        return Ext(_SCALAR, _encoder.encode([dtype.str, value.tobytes()]))
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return Ext(_ARRAY, _encoder.encode([dtype.str, value.shape, order, value.tobytes(order)]))


# ---------------------------------------------------------------- from msgpack


def _open(code: int, data: memoryview) -> object:
    opened = _OPENERS.get(code)
    if opened is None:
        raise ValueError(f"an unknown kind of value, number {code}: written by a newer omniq_nb")
    return opened(data)


def _open_dict(data: memoryview) -> dict[object, object]:
    flat = iter(decode(data))
    return dict(zip(flat, flat, strict=True))


def _open_zone(zone: Any) -> dt.tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    offset, name = zone
    delta = dt.timedelta(microseconds=offset)
    return dt.timezone(delta) if name is None else dt.timezone(delta, name)


def _open_time(data: memoryview) -> dt.time:
    naive, fold, zone = decode(data)
    return dt.time.fromisoformat(naive).replace(fold=fold, tzinfo=_open_zone(zone))


def _open_datetime(data: memoryview) -> dt.datetime:
    naive, fold, zone = decode(data)
    return dt.datetime.fromisoformat(naive).replace(fold=fold, tzinfo=_open_zone(zone))


def _open_scalar(data: memoryview) -> "np.generic":
    import numpy as np

    dtype, raw = decode(data)
    scalar: np.generic = np.frombuffer(raw, dtype)[0]
    return scalar


def _open_array(data: memoryview) -> "np.ndarray[Any, Any]":
    import numpy as np

    dtype, shape, order, raw = decode(data)
    # A bytearray, so that the array can be written to.
    return np.ndarray(tuple(shape), dtype, bytearray(raw), order=order)


_OPENERS: dict[int, Callable[[memoryview], object]] = {
    _TUPLE: lambda data: tuple(decode(data)),
    _SET: lambda data: set(decode(data)),
    _FROZENSET: lambda data: frozenset(decode(data)),
    _DICT: _open_dict,
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _BYTEARRAY: bytearray,
    _COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    _DATE: lambda data: dt.date.fromisoformat(str(data, "ascii")),
    _TIME: _open_time,
    _DATETIME: _open_datetime,
    _TIMEDELTA: lambda data: dt.timedelta(*decode(data)),
    _DECIMAL: lambda data: Decimal(str(data, "ascii")),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _SCALAR: _open_scalar,
    _ARRAY: _open_array,
    _FRAME: frame_from,
}

_decoder = msgspec.msgpack.Decoder(ext_hook=_open)
