"""Functions on their way to a worker: by reference where they can be imported, else by value."""

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from operator import is_
from pickle import PickleBuffer
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import cloudpickle
import msgspec

from omniq_nb.codec.bundles import BIG, Share, Shelf
from omniq_nb.codec.pickles import Beside, dump, load
from omniq_nb.codec.shipping import is_shipped
from omniq_nb.errors import PayloadError, PayloadRefused

_BY_REFERENCE, _BY_VALUE, _IN_BUNDLES = b"r", b"p", b"b"
_BY_VALUE_OF_ANY = b"v"  # as earlier releases packed it: without the version of Python
_PYTHON = bytes(sys.version_info[:2])

Function = Callable[..., object]

_load = lru_cache(256)(load)
"""So that a batch unpickles its function once. References are not kept: modules are reloaded."""

_loaded: Shelf[object] = Shelf(256 << 20)
"""The same for functions with bundles."""


class _InBundles(NamedTuple):
    """A function with much data.

    Attributes
    ----------
    pickle : bytes
        Its pickle, unless that is a bundle.
    whole : str
        The name of this bundle.
    arrays : tuple of str
        The names of the bundles with the data of arrays that is not in the pickle.
    """

    pickle: bytes
    whole: str
    arrays: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*filter(None, [self.whole]), *self.arrays)


_in_bundles = msgspec.msgpack.Decoder(_InBundles)


def pack_function(
    function: Function,
    *,
    strict: bool,
    allow: Sequence[str],
    share: Share | None = None,
    calls: int = 1,
) -> bytes:
    """A function as bytes.

    Parameters
    ----------
    function : callable
        Any.
    strict : bool
        Whether it must be one of those in `allow`.
    allow : sequence of str
        Rules.
    share : callable, optional
        Makes bundles of what is large; unless given, the bytes hold all.
    calls : int
        How many calls will hold these bytes. What takes much room in all of them is large too.

    Raises
    ------
    NotSerializable
        It refers to something that cannot travel.
    PayloadRefused
        Strict mode forbids it.
    """
    reference = _reference(function)
    if strict:
        _check_allowed(reference, allow)
    if reference is not None:
        return _BY_REFERENCE + reference.encode()
    if share is None:
        return _BY_VALUE + _PYTHON + _by_value(function, None)
    arrays: list[PickleBuffer] = []

    def beside(buffer: PickleBuffer) -> bool:
        if buffer.raw().nbytes <= BIG:
            return True
        arrays.append(buffer)
        return False

    data = _by_value(function, beside)
    is_large = len(data) * calls > BIG
    if not arrays and not is_large:
        return _BY_VALUE + _PYTHON + data
    names = tuple(share(array.raw()) for array in arrays)
    parts = _InBundles(b"", share(data), names) if is_large else _InBundles(data, "", names)
    return _IN_BUNDLES + _PYTHON + msgspec.msgpack.encode(parts)


@lru_cache(256)
def bundles_of_function(packed: bytes) -> tuple[str, ...]:
    """The names of the bundles that a packed function needs."""
    return _in_bundles.decode(packed[3:]).names if packed[:1] == _IN_BUNDLES else ()


def unpack_function(
    packed: bytes, *, strict: bool, allow: Sequence[str], fetch: Callable[[str], memoryview]
) -> Function:
    """The function that `pack_function` was given. Its payload's signature is verified already.

    Parameters
    ----------
    packed : bytes
        The function.
    strict, allow
        As for `pack_function`.
    fetch : callable
        Gives the verified content of a bundle.

    Raises
    ------
    PayloadRefused
        Strict mode forbids it; it was neither imported nor unpickled.
    PayloadError
        It cannot be imported here.
    """
    if packed[:1] in (_BY_VALUE, _IN_BUNDLES, _BY_VALUE_OF_ANY):
        if strict:
            _check_allowed(None, allow)
        if packed[:1] == _BY_VALUE_OF_ANY:
            return cast(Function, _load(packed[1:]))
        _check_python(packed[1:3])
        if packed[:1] == _BY_VALUE:
            return cast(Function, _load(packed[3:]))
        return cast(Function, _loaded.get(packed) or _load_bundles(packed, fetch))
    reference = packed[1:].decode()
    if strict:
        _check_allowed(reference, allow)
    module, _, name = reference.partition(":")
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PayloadError(
            f"the function {reference} cannot be imported by this worker ({error}); "
            f"install its package where the worker runs, or put it on PYTHONPATH"
        ) from None
    function = _undecorated(cast(Function, found))
    # Else "module:*" would allow all that the module has imported: "module:os.system".
    if strict and _reference(function) != reference:
        raise PayloadRefused(
            f"strict mode does not run {reference!r}: that module only imports it from elsewhere"
        )
    return function


def _check_python(packed_by: bytes) -> None:
    if packed_by != _PYTHON:
        theirs, ours = (".".join(map(str, version)) for version in (packed_by, _PYTHON))
        raise PayloadError(
            f"the function travelled by value from Python {theirs}, and this worker runs Python "
            f"{ours}: code of the one does not run in the other. Start workers with Python "
            f"{theirs}, or move the function to a module that is installed on both sides"
        )


def _load_bundles(packed: bytes, fetch: Callable[[str], memoryview]) -> object:
    parts = _in_bundles.decode(packed[3:])
    # The function may change its arrays, as it could where it was made.
    arrays = [bytearray(fetch(name)) for name in parts.arrays]
    data = bytes(fetch(parts.whole)) if parts.whole else parts.pickle
    function = load(data, arrays)
    _loaded.put(packed, function, len(data) + sum(map(len, arrays)))
    return function


class _Packed(NamedTuple):
    """A function that was pickled, and what it was made of at that time."""

    names: tuple[str, ...]
    parts: tuple[object, ...]
    modules: int
    data: bytes


def _called(function: Function) -> str:
    name = getattr(function, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else "the function"


_packed: "WeakKeyDictionary[FunctionType, _Packed]" = WeakKeyDictionary()

_CONSTANT = frozenset({type(None), bool, int, float, complex, str, bytes})


def _by_value(function: Function, beside: Beside | None) -> bytes:
    """Pickle a function, unless that was done before and nothing of it has changed since.

    Pickling it anew for each of a thousand calls would take longer than all the rest.
    """
    if type(function) is not FunctionType:
        return dump(function, _called(function), beside=beside)
    known = _packed.get(function)
    code = function.__code__
    names = known.names if known is not None and known.parts[0] is code else _names(code)
    parts = _constant_parts(function, names)
    # A module that was imported since may be one that the function needs.
    modules = len(sys.modules)
    if (
        known is not None
        and parts is not None
        and modules == known.modules
        and len(parts) == len(known.parts)
        and all(map(is_, parts, known.parts))
    ):
        return known.data
    data = dump(function, _called(function), beside=beside)
    if parts is not None:
        _packed[function] = _Packed(names, parts, modules, data)
    return data


def _constant_parts(function: FunctionType, names: tuple[str, ...]) -> tuple[object, ...] | None:
    """The objects that decide how a function is pickled: the same objects, the same pickle.

    None: it holds or names data of the notebook, which may change where nobody sees it.
    """
    defaults, annotations = function.__defaults__ or (), function.__annotations__
    variables = function.__globals__
    used = [variables[name] for name in names if name in variables]
    if (
        function.__closure__
        or function.__kwdefaults__
        or function.__dict__
        or not _CONSTANT.issuperset(map(type, defaults))
        or any(getattr(kind, "__module__", "") != "builtins" for kind in annotations.values())
        or any(type(value) is not ModuleType for value in used)
        or cloudpickle.list_registry_pickle_by_value()
    ):
        return None
    names_and_docs = (function.__qualname__, function.__module__, function.__doc__)
    typed = (*annotations, *annotations.values())
    return (function.__code__, *names_and_docs, *defaults, *typed, *used)


def _names(code: CodeType) -> tuple[str, ...]:
    """The names that a function may look up as variables, in the functions within it too."""
    inner = (name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part))
    return (*code.co_names, *inner)


def travels_by_name(value: object) -> bool:
    """Whether a function or class is imported where it arrives."""
    return _reference(cast(Function, value)) is not None


def _reference(function: Function) -> str | None:
    """``module:qualname``, if that is how to import the function."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or isinstance(function, partial):
        return None
    loaded = sys.modules.get(module)
    # A notebook's module is the worker's own, another one; some modules exist in memory only.
    if module == "__main__" or "<" in name or getattr(loaded, "__spec__", None) is None:
        return None
    if is_shipped(module):
        return None
    found: object = loaded
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(function, MethodType):
        same = found == function
    else:
        same = found is function or _undecorated(cast(Function, found)) is function
    return f"{module}:{name}" if same else None


def _undecorated(found: Function) -> Function:
    """The user's function below our decorator."""
    return cast(Function, getattr(found, "__omniq_function__", found))


def _check_allowed(reference: str | None, allow: Sequence[str]) -> None:
    if reference is None:
        raise PayloadRefused(
            "strict mode runs importable functions only, and this one travels by value: "
            "move it from the notebook to a module"
        )
    module = reference.partition(":")[0]
    for rule in allow:
        if rule in (reference, f"{module}:*"):
            return
        if rule.endswith(".*") and f"{module}.".startswith(rule[:-1]):
            return
    raise PayloadRefused(
        f"strict mode does not allow {reference!r}; allowed_functions lists {list(allow)}"
    )
