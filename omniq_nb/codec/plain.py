"""Plain data as msgpack that comes back exactly as it was, or not at all.

Exact means types too: a tuple is no list, ``numpy.float64`` is no float. What msgpack lacks
travels as extension types; what cannot be exact raises `NotPlain`, and is pickled or refused
by whoever asked. Libraries are used only if the value's own program has loaded them.
"""

import io
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext


class NotPlain(Exception):
    """The value cannot travel as plain data."""


# Extension codes are stored: never change or reuse one.
_TUPLE, _SET, _FROZENSET, _PAIRS, _BIG_INT = 1, 2, 3, 4, 5
_DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _COMPLEX, _BYTEARRAY = range(6, 14)
_NUMPY_SCALAR, _NUMPY_ARRAY = 14, 15
_ARROW_TABLE, _ARROW_BATCH, _PANDAS_FRAME, _PANDAS_SERIES = 16, 17, 18, 19
_POLARS_FRAME, _POLARS_SERIES = 20, 21
_SURROGATES = 22

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_SAFE_ATOMS = _ATOMS - {int, str}
_STR = frozenset({str})
_SEQUENCES: dict[type, int] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
_WITH_SURROGATES = ("utf-8", "surrogatepass")
_encoder = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    """The value as msgpack.

    Raises
    ------
    NotPlain
        It would not come back exactly.
    """
    try:
        try:
            return _encoder.encode(_prepared(value, _ATOMS))
        except (OverflowError, UnicodeEncodeError):
            # An int beyond 64 bits, or text that UTF-8 lacks: only now look at each.
            return _encoder.encode(_prepared(value, _SAFE_ATOMS))
    except (OverflowError, UnicodeEncodeError, RecursionError, ValueError) as error:
        raise NotPlain(str(error)) from None


def pack_atoms(args: tuple[object, ...], kwargs: dict[str, object]) -> bytes | None:
    """What ``pack([list(args), kwargs])`` gives, in one step; None if that takes more.

    Most calls are of numbers and strings, and a batch has many calls.
    """
    if _ATOMS.issuperset(map(type, args)) and _ATOMS.issuperset(map(type, kwargs.values())):
        try:
            return _encoder.encode((args, kwargs))
        except (OverflowError, UnicodeEncodeError):
            pass
    return None


def unpack(data: bytes | memoryview) -> object:
    """The value that `pack` was given."""
    return _decoder.decode(data)


def _prepared(value: Any, atoms: frozenset[type]) -> Any:
    """The value with everything that msgpack lacks replaced by extensions.

    The types in `atoms` pass as they are: flat lists and dicts are looked at in C.
    """
    kind = type(value)
    if kind in atoms:
        return value
    if kind is list:
        if atoms.issuperset(map(type, value)):
            return value
        return [_prepared(item, atoms) for item in value]
    if kind is dict:
        if not _STR.issuperset(map(type, value)) or (str not in atoms and not _is_utf8(value)):
            return _sequence(_PAIRS, [[key, item] for key, item in value.items()], atoms)
        if atoms.issuperset(map(type, value.values())):
            return value
        return {key: _prepared(item, atoms) for key, item in value.items()}
    if kind is int:
        if -(2**63) <= value < 2**64:
            return value
        size = value.bit_length() // 8 + 1
        return Ext(_BIG_INT, value.to_bytes(size, "big", signed=True))
    if kind is str:
        # Names of files may have surrogates for what is no UTF-8.
        return value if _is_utf8(value) else Ext(_SURROGATES, value.encode(*_WITH_SURROGATES))
    code = _SEQUENCES.get(kind)
    if code is not None:
        return _sequence(code, list(value), atoms)
    convert = _CONVERTERS.get(kind)
    if convert is not None:
        return convert(value)
    return _foreign(value)


def _is_utf8(text: Iterable[str]) -> bool:
    try:
        "".join(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _sequence(code: int, values: list[Any], atoms: frozenset[type]) -> Ext:
    return Ext(code, _encoder.encode(_prepared(values, atoms)))


def _datetime(value: datetime) -> Ext:
    return Ext(
        _DATETIME, pack([value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)])
    )


def _time(value: time) -> Ext:
    return Ext(
        _TIME, pack([value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)])
    )


def _zone(value: datetime | time) -> object:
    zone = value.tzinfo
    if zone is None:
        return None
    if zone is UTC:
        return "UTC"
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        if name != timezone(offset).tzname(None):
            raise NotPlain("a time zone with a name of its own")
        return offset.total_seconds()
    if type(zone) is ZoneInfo and zone.key:
        return f"zone:{zone.key}"
    raise NotPlain(f"the time zone {type(zone)}")


def _read_zone(zone: object) -> timezone | ZoneInfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return UTC if zone == "UTC" else ZoneInfo(zone.removeprefix("zone:"))
    return timezone(timedelta(seconds=float(str(zone))))


_CONVERTERS: dict[type, Callable[[Any], Ext]] = {
    datetime: _datetime,
    time: _time,
    date: lambda value: Ext(_DATE, value.isoformat().encode()),
    timedelta: lambda value: Ext(
        _TIMEDELTA, _encoder.encode([value.days, value.seconds, value.microseconds])
    ),
    Decimal: lambda value: Ext(_DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(_UUID, value.bytes),
    complex: lambda value: Ext(_COMPLEX, _encoder.encode([value.real, value.imag])),
    bytearray: lambda value: Ext(_BYTEARRAY, bytes(value)),
}


# ---------------------------------------------------------------- numpy, arrow, pandas, polars


def _foreign(value: Any) -> Ext:
    module = type(value).__module__.partition(".")[0]
    converter = {"numpy": _numpy, "pyarrow": _pyarrow, "pandas": _pandas, "polars": _polars}
    if module not in converter:
        raise NotPlain(f"the type {type(value)}")
    return converter[module](value)


def _numpy(value: Any) -> Ext:
    np = sys.modules["numpy"]
    dtype = value.dtype if isinstance(value, np.generic | np.ndarray) else None
    # Structured and object arrays, and units that a name does not tell, are pickled.
    if dtype is None or dtype.kind not in "biufcSUmM" or np.dtype(dtype.str) != dtype:
        raise NotPlain(f"the type {type(value)}")
    if type(value) is np.ndarray:
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        content = [dtype.str, list(value.shape), order, value.tobytes(order)]
        return Ext(_NUMPY_ARRAY, _encoder.encode(content))
    if type(value) is dtype.type:
        return Ext(_NUMPY_SCALAR, _encoder.encode([dtype.str, value.tobytes()]))
    raise NotPlain(f"the type {type(value)}")


def _read_array(content: list[Any]) -> Any:
    import numpy as np

    dtype, shape, order, data = content
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape, order=order).copy(order)


def _read_scalar(content: list[Any]) -> Any:
    import numpy as np

    dtype, data = content
    return np.frombuffer(data, np.dtype(dtype))[0]


def _pyarrow(value: Any) -> Ext:
    pa = sys.modules["pyarrow"]
    if type(value) is pa.Table:
        return Ext(_ARROW_TABLE, _ipc(value))
    if type(value) is pa.RecordBatch:
        return Ext(_ARROW_BATCH, _ipc(value))
    raise NotPlain(f"the type {type(value)}")


def _ipc(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _read_ipc(data: bytes | memoryview) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(data).read_all()


def _read_batch(data: bytes | memoryview) -> Any:
    import pyarrow as pa

    # As a table, a batch of no rows would have no batches.
    return pa.ipc.open_stream(data).read_next_batch()


def _pandas(value: Any) -> Ext:
    pd = sys.modules["pandas"]
    if type(value) is pd.DataFrame:
        return Ext(_PANDAS_FRAME, _frame(value))
    if type(value) is pd.Series:
        name = pack(value.name)
        return Ext(_PANDAS_SERIES, _encoder.encode([name, _frame(value.to_frame("value"))]))
    raise NotPlain(f"the type {type(value)}")


def _frame(frame: Any) -> bytes:
    """A frame as Arrow, if it comes back equal in every respect."""
    import pyarrow as pa

    if holds_objects(frame):
        raise NotPlain("a data frame with Python objects")
    try:
        data = _ipc(pa.Table.from_pandas(frame))
        restored = _read_frame(data)
    except (pa.ArrowException, TypeError, ValueError, KeyError, AttributeError) as error:
        raise NotPlain(f"a data frame that Arrow cannot hold: {error}") from None
    if not same_frames(frame, restored):
        raise NotPlain("a data frame that Arrow cannot hold exactly")
    return data


def holds_objects(frame: Any) -> bool:
    """Whether a frame of pandas has Python objects in it, or in its names."""
    import numpy as np

    kinds = [*frame.dtypes, *_levels(frame.index), *_levels(frame.columns)]
    return any(isinstance(kind, np.dtype) and kind.hasobject for kind in kinds)


def _read_frame(data: bytes | memoryview) -> Any:
    return _read_ipc(data).to_pandas()


def _levels(index: Any) -> list[Any]:
    return list(index.dtypes) if index.nlevels > 1 else [index.dtype]


def same_frames(one: Any, other: Any) -> bool:
    """Whether two frames of pandas are equal in every respect."""
    return bool(
        list(one.dtypes) == list(other.dtypes)
        and one.equals(other)
        and one.attrs == other.attrs
        and one.flags == other.flags
        and all(
            type(mine) is type(theirs)
            and mine.equals(theirs)
            and list(mine.names) == list(theirs.names)
            and _levels(mine) == _levels(theirs)
            and getattr(mine, "freq", None) == getattr(theirs, "freq", None)
            for mine, theirs in ((one.index, other.index), (one.columns, other.columns))
        )
    )


def _polars(value: Any) -> Ext:
    pl = sys.modules["polars"]
    if type(value) is pl.DataFrame:
        return Ext(_POLARS_FRAME, _polars_ipc(value))
    if type(value) is pl.Series:
        return Ext(_POLARS_SERIES, _polars_ipc(value.to_frame()))
    raise NotPlain(f"the type {type(value)}")


def _polars_ipc(frame: Any) -> bytes:
    pl = sys.modules["polars"]
    if pl.Object in frame.dtypes:
        raise NotPlain("a data frame with Python objects")
    sink = io.BytesIO()
    frame.write_ipc_stream(sink)
    return sink.getvalue()


def _read_polars(data: bytes | memoryview) -> Any:
    import polars as pl

    return pl.read_ipc_stream(bytes(data))


# ---------------------------------------------------------------- back


def _read_datetime(data: memoryview) -> datetime:
    text, fold, zone = _decoder.decode(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _read_time(data: memoryview) -> time:
    text, fold, zone = _decoder.decode(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _read_series(data: memoryview) -> Any:
    name, frame = _decoder.decode(data)
    return _read_frame(frame)["value"].rename(unpack(name))


def _text(data: memoryview) -> str:
    return str(data, "utf-8")


_READERS: dict[int, Callable[[memoryview], Any]] = {
    _TUPLE: lambda data: tuple(_decoder.decode(data)),
    _SET: lambda data: set(_decoder.decode(data)),
    _FROZENSET: lambda data: frozenset(_decoder.decode(data)),
    _PAIRS: lambda data: {key: value for key, value in _decoder.decode(data)},  # noqa: C416
    _BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    _DATETIME: _read_datetime,
    _DATE: lambda data: date.fromisoformat(_text(data)),
    _TIME: _read_time,
    _TIMEDELTA: lambda data: timedelta(*_decoder.decode(data)),
    _DECIMAL: lambda data: Decimal(_text(data)),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _COMPLEX: lambda data: complex(*_decoder.decode(data)),
    _BYTEARRAY: bytearray,
    _NUMPY_SCALAR: lambda data: _read_scalar(_decoder.decode(data)),
    _NUMPY_ARRAY: lambda data: _read_array(_decoder.decode(data)),
    _ARROW_TABLE: _read_ipc,
    _ARROW_BATCH: _read_batch,
    _PANDAS_FRAME: _read_frame,
    _PANDAS_SERIES: _read_series,
    _POLARS_FRAME: _read_polars,
    _POLARS_SERIES: lambda data: _read_polars(data).to_series(),
    _SURROGATES: lambda data: str(data, *_WITH_SURROGATES),
}


def _read_extension(code: int, data: memoryview) -> object:
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"extension type {code}, which a newer omniq_nb writes")
    return reader(data)


_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_read_extension)
