"""The panel itself: its tabs, whether anybody sees them, and which cell opened it.

Each tab is a module of its own, loaded when it is first opened. A tab keeps itself up to date
only while it is the one that is seen.

Not here: how views are kept up to date (`omniq_nb.notebook.live`).
"""

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from ipywidgets import HTML, Tab, VBox, Widget

from omniq_nb.config import OmniQConfig
from omniq_nb.core.provenance import cell_id
from omniq_nb.notebook.cards import kernel_shell
from omniq_nb.notebook.faces import html
from omniq_nb.notebook.gauges import config_gauge
from omniq_nb.notebook.live import Watch, watch
from omniq_nb.notebook.panel.backends import Backends
from omniq_nb.notebook.panel.errands import queries_ready
from omniq_nb.notebook.panel.pieces import Presence
from omniq_nb.sync import OmniQ

_MODULES = {"Workers": "workers", "Live": "activity", "Explore": "explore"}
"""Where the tabs are that need a client."""

TABS = ("Backends", *_MODULES)

CHECK_EVERY = 5.0
"""Seconds between two looks at whether anybody sees the panel."""


class Page(Protocol):
    """What is in a tab."""

    view: Widget

    def watch(self) -> Sequence[Watch[Any]]:
        """Begin to keep it up to date."""


class Panel:
    """The panel. `omniq_nb.notebook.panel.panel` makes it; showing it in a cell is enough.

    Parameters
    ----------
    oq : OmniQ, optional
        The client. Without one, the tab Backends makes it.

    Attributes
    ----------
    oq : OmniQ or None
        The client, once there is one.
    closed : bool
        Whether it has been closed, or its cell was run again.
    """

    def __init__(self, oq: OmniQ | None = None) -> None:
        self.oq = oq
        self.closed = False
        self._made: OmniQ | None = None
        self._lock = threading.RLock()  # clicks come on the kernel's thread, clients on omniq's
        self._watches: list[Watch[Any]] = []
        self._presence = Presence(self._seen_or_not)
        self._pages: dict[str, Page] = {}
        self._tabs = Tab([VBox() for _ in TABS], titles=TABS)
        self._tabs.selected_index = 0 if oq is None else TABS.index("Workers")
        self._tabs.observe(self._opened, "selected_index")
        self.view = VBox([self._presence, self._tabs]).add_class("omniq-panel")
        self._open()

    def close(self) -> None:
        """Take it away. The client and its workers go on."""
        with self._lock:
            self.closed = True
            self._rest()
        _close(self.view)

    @property
    def watches(self) -> int:
        """How many views of it are being kept up to date."""
        return sum(not each.stopped for each in self._watches)

    # ---------------------------------------------------------------- tabs

    def page(self, name: str) -> Page | None:
        """What is in a tab, if it was opened already."""
        return self._pages.get(name)

    def _opened(self, _: object) -> None:
        with self._lock:
            self._open()

    def _open(self) -> None:
        """Fill the tab that is open, and keep it up to date if it is seen."""
        self._rest()
        index = self._tabs.selected_index
        if self.closed or index is None:
            return
        name = TABS[index]
        if name not in self._pages:
            page = self._make(name)
            holder = self._tabs.children[index]
            if page is None:
                hint = "Connect first: choose backends in the tab Backends, then press Connect."
                holder.children = [HTML(f'<p class="omniq-said">{hint}</p>')]
            else:
                self._pages[name] = page
                holder.children = [page.view]
        self._wake()

    def _make(self, name: str) -> Page | None:
        if name == "Backends":
            return Backends(None if self.oq is None else self.oq.config, self._connected)
        if self.oq is None:
            return None
        module = import_module(f"omniq_nb.notebook.panel.{_MODULES[name]}")
        return cast(Page, getattr(module, name)(self.oq))

    def _connected(self, oq: OmniQ) -> None:
        """Go on with this client, which the tab Backends made."""
        with self._lock:
            before, self._made, self.oq = self._made, oq, oq
            shell = kernel_shell()
            if shell is not None and shell.user_ns.get("oq", before) is before:
                shell.user_ns["oq"] = oq
            for name in _MODULES:
                page = self._pages.pop(name, None)
                if page is not None:
                    _close(page.view)
            self._open()
        if before is not None:
            threading.Thread(target=before.close, name="omniq close").start()

    # ---------------------------------------------------------------- being seen

    def _seen_or_not(self) -> None:
        with self._lock:
            if self._presence.seen(_busy()):
                self._wake()
            else:
                self._rest()

    def _wake(self) -> None:
        """Keep the open tab up to date, if anybody sees it."""
        if self.closed or self.oq is None or self._watches or not self._presence.seen(_busy()):
            return
        index = self._tabs.selected_index
        page = None if index is None else self._pages.get(TABS[index])
        if page is not None:
            queries_ready()  # once it is shown: begin to load what the first query needs
            self._watches = [
                *page.watch(),
                watch(self.oq, self._look, self._looked, CHECK_EVERY, widget=self.view),
            ]

    def _rest(self) -> None:
        for each in self._watches:
            each.stop()
        self._watches = []

    async def _look(self) -> bool:
        return self._presence.seen(_busy())

    def _looked(self, seen: bool) -> None:
        if not seen:
            with self._lock:
                self._rest()

    # ---------------------------------------------------------------- faces

    def __repr__(self) -> str:
        return f"<Panel of {self.oq!r}>" if self.oq is not None else "<Panel, not connected>"

    def _repr_mimebundle_(self, **choice: Any) -> dict[str, Any]:
        bundle = {} if self.closed else self.view._repr_mimebundle_(**choice)
        # For whoever opens the saved notebook without its kernel.
        face = html(config_gauge(OmniQConfig() if self.oq is None else self.oq.config))
        return {**bundle, "text/plain": repr(self), "text/html": face}


def open_panel(oq: OmniQ | None) -> Panel:
    """Make a panel in place of the one that the same cell opened before."""
    made = Panel(oq)
    shell: Any = kernel_shell()
    if shell is not None:
        _attend(shell)
        # Front ends that do not name their cells have one panel at a time.
        cell = cell_id(shell)
        earlier = _panels.pop(cell, None)
        if earlier is not None:
            earlier.close()
        _panels[cell] = made
    return made


_panels: dict[str | None, Panel] = {}
"""The open panels, by the cell that opened them."""


class _Cells:
    """Knows whether a cell is being run."""

    running = False

    def begins(self, *_: object) -> None:
        self.running = True

    def ends(self, *_: object) -> None:
        self.running = False


_cells = _Cells()


def _attend(shell: Any) -> None:
    callbacks: dict[str, list[Callable[..., None]]] = shell.events.callbacks
    if _cells.begins not in callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _cells.begins)
        shell.events.register("post_run_cell", _cells.ends)
        _cells.running = True  # this cell is


def _busy() -> bool:
    return _cells.running


def _close(widget: Widget) -> None:
    """Close a widget and all that it is made of."""
    parts = [getattr(widget, name) for name in widget.keys if name != "comm"]
    widget.close()
    for part in parts:
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, Widget):
                _close(each)
