"""Before a call is submitted: what travels with it, what cannot, and what its workers lack.

Not here: packing (`omniq_nb.codec`), which refuses what cannot travel with the same words.
"""

import platform
import socket
import sys
from collections.abc import Iterable, Mapping
from functools import cache, partial
from importlib.metadata import packages_distributions
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import NamedTuple

import msgspec

from omniq_nb.codec import type_name
from omniq_nb.codec.captured import ARROW, modules_imported, parts
from omniq_nb.codec.functions import travels_by_name
from omniq_nb.codec.pickles import weigh
from omniq_nb.codec.shipping import is_shipped
from omniq_nb.core.engine import Engine
from omniq_nb.core.function import DecoratedFunction
from omniq_nb.core.options import TaskOptions
from omniq_nb.core.provenance import Environment, environment
from omniq_nb.core.submission import function_name, plain_function
from omniq_nb.errors import NotSerializable
from omniq_nb.liveness import seen_now
from omniq_nb.models.event import EventType
from omniq_nb.models.task import WorkerInfo

LIMIT = 1 << 30
"""Bytes of one thing after which it is no longer weighed."""

WORTH_TELLING = 10_000
"""Bytes from which on something is listed."""


_INSTALLED = frozenset({"site-packages", "dist-packages"})

_CODE = FunctionType | MethodType | BuiltinFunctionType | type


class Carried(NamedTuple):
    """Something that travels with a call.

    Attributes
    ----------
    path : str
        Where it is: ``"fit -> global `table`"``.
    type : str
        Of what it is an instance.
    size : int
        Bytes, roughly.
    """

    path: str
    type: str
    size: int


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a call that was not submitted.

    Attributes
    ----------
    name : str
        The function's.
    carried : tuple of Carried
        What travels with each task, largest first, but for what is small.
    size : int
        Bytes of all that travels, small things too.
    packages : tuple of str
        What the function needs installed where it runs, as far as can be seen.
    troubles : tuple of str
        What will not work, and what to do about it, each in words.
    """

    name: str
    carried: tuple[Carried, ...]
    size: int
    packages: tuple[str, ...]
    troubles: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that will not work."""
        return not self.troubles

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        verdict = "can run" if self.ok else "will not run"
        lines = [f"{self.name} {verdict}; {in_words(self.size)} of data travel with each call"]
        lines += [f"- {trouble}" for trouble in self.troubles]
        lines += [f"  {in_words(it.size):>10}  {it.path} ({it.type})" for it in self.carried]
        if self.packages:
            lines.append(f"  it needs {', '.join(self.packages)}")
        return "\n".join(lines)


class _Examination:
    """Follows what a call takes along."""

    def __init__(self) -> None:
        self.carried: list[Carried] = []
        self.size = 0
        self.modules: set[str] = set()
        self.troubles: list[str] = []
        self.by_value = False
        self._seen: list[object] = []  # kept, so that an identity means one thing

    def visit(self, value: object, path: str) -> None:
        if any(value is seen for seen in self._seen):
            return
        self._seen.append(value)
        if isinstance(value, DecoratedFunction):
            value = value.__omniq_function__
        if isinstance(value, ModuleType) and not is_shipped(value.__name__):
            self.modules.add(value.__name__)
        elif isinstance(value, _CODE) and travels_by_name(value):
            self.modules.add(value.__module__)
        elif isinstance(value, FunctionType):
            self.by_value = True
            self.modules.update(modules_imported(value.__code__))
            for name, part in parts(value):
                self.visit(part, path + ARROW + name)
        elif isinstance(value, partial):
            for name, part in parts(value):
                self.visit(part, path if name == "function" else path + ARROW + name)
        else:
            self.by_value |= isinstance(value, _CODE)
            self._weigh(value, path)

    def _weigh(self, value: object, path: str) -> None:
        self.modules.add(type(value).__module__)
        try:
            weight = weigh(value, path, LIMIT)
        except NotSerializable as error:
            self.troubles.append(str(error))
            return
        self.size += weight.size
        if weight.size >= WORTH_TELLING:
            self.carried.append(Carried(path, type_name(value), weight.size))


async def check(
    engine: Engine,
    function: object,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    options: TaskOptions,
) -> Check:
    """Look at a call, and at the workers that would run it.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    function, args, kwargs
        The call.
    options : TaskOptions
        With which it would be submitted.
    """
    plain = plain_function(function)  # type: ignore[arg-type]
    name = options.name or function_name(plain)
    short = name.rpartition(".")[2]
    found = _Examination()
    found.visit(plain, short)
    for number, value in enumerate(args, 1):
        found.visit(value, f"{short}{ARROW}argument {number}")
    for key, value in kwargs.items():
        found.visit(value, f"{short}{ARROW}argument {key!r}")
    installed, own = _needed(found.modules)
    workers = seen_now(await engine.stores.task_queue.workers())
    serving = [w for w in workers if w.state == "running" and options.queue in w.queues]
    told = await _environments(engine, {worker.environment for worker in serving})
    for worker in serving:
        found.troubles += _lacks(worker, told.get(worker.environment), found, installed, own)
    return Check(
        name=name,
        carried=tuple(sorted(found.carried, key=lambda it: -it.size)),
        size=found.size,
        packages=tuple(sorted(installed)),
        troubles=tuple(dict.fromkeys(found.troubles)),
    )


def _needed(modules: Iterable[str]) -> tuple[set[str], set[str]]:
    """Split modules into the packages that they are installed by, and files of one's own."""
    known = msgspec.json.decode(environment().json, type=Environment).packages
    installed, own = set[str](), set[str]()
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "builtins", "omniq_nb", "None"):
            continue
        package = top.replace("_", "-").lower()
        if package not in known and _is_installed(top):
            package = _owner(top)
        if package in known:
            installed.add(package)
        elif not is_shipped(module):
            own.add(top)
    return installed, own


def _is_installed(module: str) -> bool:
    """Whether a module, if it is loaded, lies where packages are installed."""
    loaded = sys.modules.get(module)
    places = [getattr(loaded, "__file__", None) or "", *getattr(loaded, "__path__", ())]
    return any(_INSTALLED.intersection(Path(place).parts) for place in places)


@cache
def _owner(module: str) -> str:
    """The package that a module is part of, if its name is another one: takes a second."""
    owners = packages_distributions().get(module, [module])
    return owners[0].replace("_", "-").lower()


async def _environments(engine: Engine, wanted: set[str]) -> dict[str, Environment]:
    """What the environments' hashes stand for."""
    if not wanted:
        return {}
    await engine.events.flush()
    rows = await engine.explorer.table(
        "events", columns=("message", "data"), where={"type": str(EventType.ENVIRONMENT)}
    )
    return {
        row["message"]: msgspec.json.decode(row["data"], type=Environment)
        for row in rows.to_pylist()
        if row["message"] in wanted
    }


def _lacks(
    worker: WorkerInfo,
    described: Environment | None,
    found: _Examination,
    installed: set[str],
    own: set[str],
) -> Iterable[str]:
    """What a worker cannot do, and the remedies."""
    where = f"the {worker.kind} worker {worker.id}"
    ours = platform.python_version()
    if found.by_value and worker.python and _minor(worker.python) != _minor(ours):
        yield (
            f"{where} runs Python {worker.python}, and this is {ours}: code of the one does not "
            f"run in the other. Start workers with Python {_minor(ours)}, or move the function "
            f"to a module that is installed on both sides: then it travels by name"
        )
    if described is not None:
        for package in sorted(installed - described.packages.keys()):
            yield f"{where} has no {package}: pip install {package} where it runs"
    if worker.host != socket.gethostname():
        for module in sorted(own):
            yield (
                f"{where} is on another machine ({worker.host}), which may have no module "
                f"{module}: oq.ship({module}) sends it along"
            )


def in_words(size: int) -> str:
    """A number of bytes as people read it.

    Examples
    --------
    >>> in_words(12_345_678)
    '12.3 MB'
    """
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
