"""Work that a click asks for: done on omniq's loop, so that the kernel stays free.

Not here: views that keep themselves up to date (`omniq_nb.notebook.live`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from html import escape
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from ipywidgets import HTML

from omniq_nb.errors import OmniQError
from omniq_nb.portal import LoopThread

T = TypeVar("T")

log = logging.getLogger("omniq_nb.notebook")


class Status:
    """A line that says what is going on, which screen readers read out."""

    def __init__(self) -> None:
        self.view = HTML()

    def say(self, text: str) -> None:
        """Say how it went."""
        self._write("omniq-said", text)

    def complain(self, text: str) -> None:
        """Say what is wrong."""
        self._write("omniq-said omniq-problem", text)

    def doubt(self, error: OmniQError | None) -> None:
        """Say that a view is not up to date, or that it is again."""
        self.complain("" if error is None else f"not up to date: {error}")

    def _write(self, kind: str, text: str) -> None:
        self.view.value = f'<div class="{kind}" role="status">{escape(text)}</div>' if text else ""


def errand(
    work: Coroutine[Any, Any, T],
    done: Callable[[T], None],
    failed: Callable[[str], None],
    after: Callable[[], None] = lambda: None,
) -> "Future[None]":
    """Have something done on the loop, and say how it went. All callbacks run there.

    Parameters
    ----------
    work : coroutine
        What to do. It must not block.
    done : callable
        Called with what it gave.
    failed : callable
        Called with what went wrong, in words.
    after : callable
        Called in any case, also when it was cancelled.

    Returns
    -------
    Future
        To cancel it.
    """

    async def run() -> None:
        try:
            done(await work)
        except OmniQError as error:
            failed(str(error))
        except Exception as error:
            log.exception("a click on the panel met a defect")
            failed(f"{type(error).__name__}: {error}")
        finally:
            after()

    return asyncio.run_coroutine_threadsafe(run(), LoopThread.shared().loop)


def queries_ready() -> bool:
    """Whether a query is quick: what it needs has been loaded. If it has not, that begins now.

    Loading takes as long as many looks, and a view that is slow once is asked seldom.
    """
    return _loading().done()


@cache
def _loading() -> "Future[ModuleType]":
    work = asyncio.to_thread(import_module, "omniq_nb.notebook.panel.rows")
    return asyncio.run_coroutine_threadsafe(work, LoopThread.shared().loop)
