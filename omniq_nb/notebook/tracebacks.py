"""Errors of omniq_nb in a notebook: one readable message, and where in the user's code it was.

IPython asks an exception for it by `_render_traceback_`. What a task's own code raised is not
ours and keeps its traceback.
"""

import linecache
import traceback
from collections.abc import Iterator
from types import FrameType

from omniq_nb.core.provenance import shell_here
from omniq_nb.errors import OmniQError

_INTERNAL = frozenset(
    {"omniq_nb", "IPython", "ipykernel", "asyncio", "concurrent", "contextlib", "threading"}
)
"""Packages whose lines tell a user nothing about an error of ours."""

_RED, _PLAIN = "\x1b[31m", "\x1b[39m"


def rendered(error: OmniQError) -> list[str]:
    """The lines that a notebook shows in place of a traceback.

    Parameters
    ----------
    error : OmniQError
        As it was caught.
    """
    name = type(error).__name__
    lines = [
        *(f"{place}\n    {code}" for place, code in _places(error)),
        f"{_RED}{name}{_PLAIN}: {error}" if _coloured() else f"{name}: {error}",
    ]
    return lines + [str(note) for note in getattr(error, "__notes__", ())]


def _places(error: OmniQError) -> Iterator[tuple[str, str]]:
    """Lines of the user's code that led to the error: where, and what stands there."""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in _INTERNAL:
            code = linecache.getline(frame.f_code.co_filename, number).strip()
            # The line of a magic is shown by the cell itself, in the user's own spelling.
            if code and not code.startswith("get_ipython().run_"):
                yield f"{_file(frame)}, line {number}", code


def _file(frame: FrameType) -> str:
    """What a user calls the file of a frame: cells have numbers, not paths."""
    name = frame.f_code.co_filename
    shell = shell_here()
    label = None if shell is None else shell.compile.format_code_name(name)
    return name if label is None else " ".join(label)


def _coloured() -> bool:
    shell = shell_here()
    return shell is not None and str(shell.colors).lower() != "nocolor"
