"""Cards: an object's face in a notebook, kept up to date until there is nothing new to come.

A card is an ordinary output that is updated in place, so the notebook always holds its last
face, as static HTML: it shows after the kernel has gone, in nbconvert, on GitHub, and without
any widget library. Voila, which cannot update an output, gets a widget instead.

Not here: what stands on a card (`omniq_nb.notebook.gauges`) and its looks
(`omniq_nb.notebook.faces`).
"""

import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, NamedTuple, Protocol

from omniq_nb.config import OmniQConfig
from omniq_nb.core.provenance import cell_id, shell_here
from omniq_nb.display import Shown
from omniq_nb.errors import OmniQError
from omniq_nb.notebook import faces
from omniq_nb.notebook.faces import Gauge
from omniq_nb.notebook.gauges import (
    Tally,
    client_gauge,
    config_gauge,
    handle_gauge,
    workers_gauge,
)
from omniq_nb.notebook.live import Watch, watch
from omniq_nb.sync import Batch, Handle, OmniQ, Workers, _Caller

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell

MOST = 30
"""Cards that are live at the same time; the oldest ones then keep their last face."""


class Asked(NamedTuple):
    """How to learn what stands on an object's card.

    Attributes
    ----------
    caller : _Caller
        The client's inside.
    once : callable
        Asks for everything, however long it takes.
    again : callable
        Asks for what may be new, and takes a bounded time.
    """

    caller: _Caller
    once: Callable[[], Awaitable[Gauge]]
    again: Callable[[], Awaitable[Gauge]]


@singledispatch
def asked(thing: Shown) -> Asked:
    """How to learn what stands on the card of `thing`."""
    raise NotImplementedError(type(thing))


@asked.register
def _(thing: Batch) -> Asked:  # type: ignore[type-arg]  # singledispatch wants the bare class
    return _asked_tally(thing._caller, thing.ids, thing.name)


@asked.register
def _(thing: Handle) -> Asked:  # type: ignore[type-arg]
    engine, task_id = thing._caller.engine, thing.id
    return _asked(thing._caller, lambda: handle_gauge(engine, task_id))


@asked.register
def _(thing: Workers) -> Asked:
    engine = thing._caller.engine
    return _asked(thing._caller, lambda: workers_gauge(engine))


@asked.register
def _(thing: OmniQ) -> Asked:
    engine = thing._caller.engine
    return _asked(thing._caller, lambda: client_gauge(engine))


def _asked(caller: _Caller, ask: Callable[[], Awaitable[Gauge]]) -> Asked:
    return Asked(caller, ask, ask)


def _asked_tally(caller: _Caller, ids: Sequence[str], name: str) -> Asked:
    tally = Tally(caller.engine, name, ids)
    return Asked(caller, lambda: tally.gauge(fully=True), tally.gauge)


# -------------------------------------------------------------------- static faces


def bundle(thing: Shown) -> dict[str, str]:
    """The static faces of an object, by MIME type."""
    gauge, trouble = _now(thing)
    return _faces(gauge, trouble)


def text(thing: Shown) -> str:
    """The plain text face of an object."""
    return bundle(thing)["text/plain"]


def _now(thing: Shown) -> tuple[Gauge | str, str | None]:
    """What stands on its card now; just its name, and why, if its stores cannot tell."""
    if isinstance(thing, OmniQConfig):
        return config_gauge(thing), None
    way = asked(thing)
    try:
        return way.caller.loop.call(_await(way.once)), None
    except OmniQError as error:
        return repr(thing) if isinstance(thing, Handle | OmniQ) else _name(thing), str(error)


def _name(thing: Shown) -> str:
    return f"Batch {thing.name!r}" if isinstance(thing, Batch) else type(thing).__name__


async def _await(ask: Callable[[], Awaitable[Gauge]]) -> Gauge:
    return await ask()


def _faces(gauge: Gauge | str, trouble: str | None) -> dict[str, str]:
    plain = gauge if isinstance(gauge, str) else faces.text(gauge)
    return {
        "text/plain": f"{plain}\n{trouble}" if trouble else plain,
        "text/html": faces.html(gauge, trouble),
    }


# -------------------------------------------------------------------- live cards


class Canvas(Protocol):
    """Where a card is drawn: once, then again and again."""

    def draw(self, faces: dict[str, str]) -> None:
        """Show these faces in place of the last ones."""


class OutputCanvas:
    """An output of the cell that is run now, updated in place."""

    def __init__(self) -> None:
        self._display_id: str | None = None

    def draw(self, faces: dict[str, str]) -> None:
        """Show these faces in place of the last ones."""
        from IPython.display import display, update_display

        if self._display_id is None:
            self._display_id = os.urandom(16).hex()
            display(faces, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
        else:
            update_display(faces, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]


class WidgetCanvas:
    """A widget, which a page that was rendered beforehand can update."""

    def __init__(self) -> None:
        from ipywidgets import HTML

        self._widget = HTML()
        self._displayed = False

    def draw(self, faces: dict[str, str]) -> None:
        """Show these faces in place of the last ones."""
        from IPython.display import display

        self._widget.value = faces["text/html"]
        if not self._displayed:
            self._displayed = True
            display(self._widget)  # type: ignore[no-untyped-call]


class Card:
    """One card in a notebook.

    Parameters
    ----------
    way : Asked
        How to learn what stands on it.
    canvas : Canvas
        Where it is drawn.
    """

    def __init__(self, way: Asked, canvas: Canvas) -> None:
        self._way = way
        self._canvas = canvas
        self._gauge: Gauge | str = ""
        self.watch: Watch[Gauge] | None = None

    def open(self, first: Gauge | str, trouble: str | None) -> None:
        """Draw it, and keep it up to date as long as something may change."""
        self._gauge = first
        self._canvas.draw(_faces(first, trouble))
        if isinstance(first, str) or not first.over:
            # Functions, not methods: as long as it is open, nobody else holds it.
            self.watch = watch(
                self._way.caller,
                lambda: self._way.again(),
                lambda gauge: self._show(gauge),
                trouble=lambda error: self._doubt(error),
            )

    def _show(self, gauge: Gauge) -> None:
        if gauge == self._gauge:
            return
        self._gauge = gauge
        self._canvas.draw(_faces(gauge, None))
        if gauge.over and self.watch is not None:
            self.watch.stop()

    def _doubt(self, error: OmniQError | None) -> None:
        trouble = None if error is None else f"not up to date: {error}"
        self._canvas.draw(_faces(self._gauge, trouble))


_live: "deque[tuple[str | None, weakref.ref[Watch[Gauge]]]]" = deque()
"""The open cards, oldest first, and the cell that each was shown by."""


def present(thing: Shown) -> None:
    """Show the live card of an object under the cell that is run now.

    Raises
    ------
    NotImplementedError
        There is no kernel: a terminal, a script.
    """
    if kernel_shell() is None:
        raise NotImplementedError("no kernel")
    if isinstance(thing, OmniQConfig):  # it never changes
        canvas_here().draw(bundle(thing))
        return
    way = asked(thing)
    if way.caller.closed:
        canvas_here().draw(bundle(thing))
        return
    try:
        first: Gauge | str = way.caller.loop.call(_await(way.again))
        trouble = None
    except OmniQError as error:
        first, trouble = _name(thing), str(error)
    _open(Card(way, canvas_here()), first, trouble)


def present_batch(caller: _Caller, ids: Sequence[str], name: str) -> None:
    """Show a card of these tasks while somebody waits for them."""
    way = _asked_tally(caller, ids, name)
    _open(Card(way, canvas_here()), caller.loop.call(_await(way.again)), None)


def kernel_shell() -> "InteractiveShell | None":
    """IPython's shell, if it belongs to a kernel."""
    shell: InteractiveShell | None = shell_here()
    return shell if getattr(shell, "kernel", None) is not None else None


def canvas_here() -> Canvas:
    """Where cards can be drawn in this front end."""
    # Voila says who it is in its kernels' environment.
    voila = os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
    return WidgetCanvas() if voila else OutputCanvas()


def _open(card: Card, first: Gauge | str, trouble: str | None) -> None:
    card.open(first, trouble)
    if card.watch is None:
        return
    for entry in [entry for entry in _live if (old := entry[1]()) is None or old.stopped]:
        _live.remove(entry)
    _live.append((_this_cell(), weakref.ref(card.watch)))
    if len(_live) > MOST:
        _stop(_live.popleft())


def _this_cell() -> str | None:
    """The cell that is run now, where the front end says so; hear of the next ones, too."""
    shell = kernel_shell()
    if shell is None:
        return None
    if _cell_runs not in shell.events.callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _cell_runs)
    return cell_id(shell)


def _cell_runs(info: "ExecutionInfo") -> None:
    """A cell is run again: the front end throws its outputs away."""
    cell = getattr(info, "cell_id", None)
    if cell is None:
        return
    for entry in [entry for entry in _live if entry[0] == cell]:
        _stop(entry)
        _live.remove(entry)


def _stop(entry: "tuple[str | None, weakref.ref[Watch[Gauge]]]") -> None:
    stopping = entry[1]()
    if stopping is not None:
        stopping.stop()
