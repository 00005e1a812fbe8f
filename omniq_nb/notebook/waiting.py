"""How far a wait is: a live card in a notebook, a progress bar in a terminal, else nothing.

Not here: the waiting itself (`omniq_nb.sync`).
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omniq_nb.sync import _Caller


@contextlib.contextmanager
def waiting(caller: "_Caller", ids: Sequence[str], name: str) -> Iterator[Callable[[int], None]]:
    """Show how far it is as long as the block runs.

    Parameters
    ----------
    caller : _Caller
        The client's inside.
    ids : sequence of str
        The tasks that are waited for.
    name : str
        What they are called.

    Yields
    ------
    callable
        To be told how many are over.
    """
    if "IPython" in sys.modules:
        from omniq_nb.notebook import cards

        if cards.kernel_shell() is not None:
            cards.present_batch(caller, ids, name)
            yield _nothing
            return
    if not sys.stderr.isatty():
        yield _nothing
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text
    except ImportError:  # it comes with the notebook extra
        yield _nothing
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(Text(name).markup, total=len(ids))
        yield lambda done: bar.update(task, completed=done)


def _nothing(done: int) -> None:
    """Nobody looks."""
