"""The way from our objects to their faces, for whoever shows them.

Rooms import downwards only, and `omniq_nb.notebook`, where the faces are, is above all others.
So it is loaded by name, and not before something is shown.
"""

from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omniq_nb.sync import _Caller


def notebook(module: str) -> ModuleType:
    """A module of `omniq_nb.notebook`."""
    return import_module(f"omniq_nb.notebook.{module}")


class Shown:
    """What has a face: a live card in a notebook, static HTML elsewhere, plain text in `print`."""

    __slots__ = ()

    def __str__(self) -> str:
        return cast(str, notebook("cards").text(self))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return cast(dict[str, str], notebook("cards").bundle(self))

    def _ipython_display_(self) -> None:
        # Raises NotImplementedError where no display can be updated; IPython then takes the bundle.
        notebook("cards").present(self)


def waiting(
    caller: "_Caller", ids: "Sequence[str]", name: str
) -> AbstractContextManager["Callable[[int], None]"]:
    """Show how far a wait is, where there is somebody to see it; told how many are over."""
    return cast(
        AbstractContextManager["Callable[[int], None]"],
        notebook("waiting").waiting(caller, ids, name),
    )


def settled(caller: "_Caller") -> None:
    """Bring the open cards of a client up to date: what they show has just ended."""
    notebook("live").refresh(caller)
