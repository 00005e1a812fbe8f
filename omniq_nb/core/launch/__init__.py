"""Workers outside of this process: the interface of what launches them, and who does.

Another engine (Ray, Slurm, Kubernetes) is one file: a subclass of `Launcher`, named in
`LAUNCHERS` or by an installed package's entry point in the group ``omniq_nb.launchers``.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points

from omniq_nb.core.engine import Engine
from omniq_nb.core.launch.base import Launcher
from omniq_nb.errors import ConfigError

LAUNCHERS: Mapping[str, str] = {
    "background": "omniq_nb.core.launch.background:BackgroundLauncher",
    "dask": "omniq_nb.core.launch.dask:DaskLauncher",
}
"""Ours by `kind`, each loaded when it is first asked for."""

GROUP = "omniq_nb.launchers"


def launcher_kinds() -> tuple[str, ...]:
    """The kinds of launched workers, ours and those that installed packages add."""
    added = (point.name for point in entry_points(group=GROUP))
    return (*LAUNCHERS, *(name for name in added if name not in LAUNCHERS))


def make_launcher(kind: str, engine: Engine, options: Mapping[str, object]) -> Launcher:
    """The launcher of a known kind.

    Raises
    ------
    ConfigError
        It does not know one of the options, or one has a wrong value; or this system has not
        what it needs.
    """
    if kind == "background" and os.name != "posix":
        raise ConfigError("kind", kind, "thread, async or process: background needs a POSIX system")
    make: Callable[[Engine, Mapping[str, object]], Launcher]
    if kind in LAUNCHERS:
        module, _, name = LAUNCHERS[kind].partition(":")
        try:
            make = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            allowed = f'a kind that is installed: pip install "omniq_nb[{kind}]" ({error})'
            raise ConfigError("kind", kind, allowed) from None
    else:
        (point, *_) = entry_points(group=GROUP, name=kind)
        make = point.load()
    return make(engine, options)
