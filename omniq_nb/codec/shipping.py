"""Modules that travel with the functions that need them, to workers that cannot import them.

Not here: how a function is packed (`omniq_nb.codec.functions`).
"""

import importlib
import sys
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

import cloudpickle

from omniq_nb.errors import ConfigError

_shipped: dict[str, bytes] = {}
"""Names of shipped modules, with a digest of their sources as they were loaded."""


def ship(module: ModuleType) -> None:
    """Have a module travel by value from now on, and what is below it if it is a package.

    Its functions and classes are packed with each call that needs them. If its files have changed
    since it was shipped before, it is reloaded.

    Parameters
    ----------
    module : module
        Written in Python.

    Raises
    ------
    ConfigError
        It is something else.
    """
    allowed = "an imported module that is written in Python: import it, and give the module"
    if not isinstance(module, ModuleType):
        raise ConfigError("module", module, allowed)
    name = module.__name__
    if name == "__main__":
        raise ConfigError("module", name, "other modules: what the notebook defines travels anyway")
    if sys.modules.get(name) is not module or not _sources(name):
        raise ConfigError("module", name, allowed)
    digest = _digest(name)
    if _shipped.get(name, digest) != digest:
        for part in _in_order(name):
            importlib.reload(sys.modules[part])
    _shipped[name] = digest
    cloudpickle.register_pickle_by_value(module)


def is_shipped(module: str) -> bool:
    """Whether a module of that name, or a package above it, travels by value."""
    shipped = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in shipped)


def _loaded(name: str) -> list[str]:
    """List the module and what is loaded of the package that it is."""
    return [known for known in list(sys.modules) if known == name or known.startswith(f"{name}.")]


def _sources(name: str) -> list[Path]:
    files = (getattr(sys.modules[part], "__file__", None) for part in _loaded(name))
    return [Path(file) for file in files if file is not None and file.endswith(".py")]


def _digest(name: str) -> bytes:
    digest = blake2b(digest_size=16)
    for file in sorted(_sources(name)):
        digest.update(str(file).encode() + b"\0" + file.read_bytes())
    return digest.digest()


def _in_order(name: str) -> list[str]:
    """List the loaded modules of a package so that each comes after those whose parts it has."""
    parts = _loaded(name)
    uses: dict[str, set[str]] = {}
    for part in parts:
        values = list(vars(sys.modules[part]).values())
        used = {
            value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            for value in values
        }
        uses[part] = {other for other in parts if other in used and other != part}
    try:
        return list(TopologicalSorter(uses).static_order())
    except CycleError:  # they import each other, and somebody will have the older one's parts
        return parts[::-1]
