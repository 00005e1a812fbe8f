"""The task queue that lives in a notebook.

`OmniQ` for scripts and cells, `AsyncOmniQ` for code with an event loop, `configure` to choose
backends step by step. Names are loaded when they are first used: importing the package is
cheap and needs no database driver, no DuckDB and no data frame library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from omniq_nb.config import OmniQConfig, StorageBackendConfig
    from omniq_nb.core.client import AsyncOmniQ
    from omniq_nb.core.context import CurrentTask, current_task
    from omniq_nb.models.task import Retry, State
    from omniq_nb.notebook.panel import panel
    from omniq_nb.sync import Batch, Handle, OmniQ, as_completed, configure, gather

_HOMES = {
    "OmniQ": "omniq_nb.sync",
    "Handle": "omniq_nb.sync",
    "Batch": "omniq_nb.sync",
    "configure": "omniq_nb.sync",
    "as_completed": "omniq_nb.sync",
    "gather": "omniq_nb.sync",
    "AsyncOmniQ": "omniq_nb.core.client",
    "OmniQConfig": "omniq_nb.config",
    "StorageBackendConfig": "omniq_nb.config",
    "Retry": "omniq_nb.models.task",
    "State": "omniq_nb.models.task",
    "CurrentTask": "omniq_nb.core.context",
    "current_task": "omniq_nb.core.context",
    "errors": "omniq_nb.errors",
    "panel": "omniq_nb.notebook.panel",
    "plots": "omniq_nb.notebook.plots",
}

__all__ = [
    "AsyncOmniQ",
    "Batch",
    "CurrentTask",
    "Handle",
    "OmniQ",
    "OmniQConfig",
    "Retry",
    "State",
    "StorageBackendConfig",
    "as_completed",
    "configure",
    "current_task",
    "errors",
    "gather",
    "panel",
    "plots",
]


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Load the magics: ``%load_ext omniq_nb``."""
    import_module("omniq_nb.notebook.magics").load(shell)


def unload_ipython_extension(shell: "InteractiveShell") -> None:
    """Unload the magics: ``%unload_ext omniq_nb``. The client and the work go on."""
    import_module("omniq_nb.notebook.magics").unload(shell)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'omniq_nb' has no attribute {name!r}")
    module = import_module(home)
    value = getattr(module, name, module)  # some names are those of modules
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
