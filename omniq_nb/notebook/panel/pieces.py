"""The parts of the panel that ipywidgets does not have: small ES modules of our own.

Fields whose text reaches the kernel without becoming part of the widget's state, which is saved
with the notebook; a table that holds one page of its rows; a text to copy; and whether anybody
sees the panel at all. The modules are in `static`, and nothing is fetched from anywhere else.

Not here: what they are used for (the tabs' modules).
"""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from omniq_nb.config.options import BACKENDS
from omniq_nb.notebook.panel.draft import Draft, fields_of

PATIENCE = 35.0
"""Seconds after which a view that says nothing any more counts as gone; it speaks every 10."""

SHORT = {"description_width": "initial"}
"""The style of a control beside others: its label takes no more room than it needs."""

_STATIC = Path(__file__).parent / "static"


@cache
def _module(name: str) -> str:
    scripts = ((_STATIC / f"{part}.js").read_text(encoding="utf-8") for part in ("base", name))
    return "\n".join(scripts)


class Presence(anywidget.AnyWidget):
    """Knows whether anybody sees the panel, and brings its style sheet.

    Parameters
    ----------
    changed : callable
        Called when the first view comes, and when the last one goes.
    """

    _esm = _module("presence")
    _css = (_STATIC / "panel.css").read_text(encoding="utf-8")

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed
        self._views: dict[str, float] = {}
        self.layout.display = "none"
        self.on_msg(self._received)

    def seen(self, busy: bool) -> bool:
        """Whether anybody sees it.

        Parameters
        ----------
        busy : bool
            The kernel runs a cell: what the page says waits until it is over, and silence
            means nothing.
        """
        now = time.monotonic()
        if busy:
            self._views = dict.fromkeys(self._views, now)
        else:
            self._views = {view: at for view, at in self._views.items() if at > now - PATIENCE}
        return bool(self._views)

    def _received(self, _: object, message: dict[str, Any], __: object) -> None:
        before = bool(self._views)
        if message.get("seen"):
            self._views[str(message.get("view"))] = time.monotonic()
        else:
            self._views.pop(str(message.get("view")), None)
        if before != bool(self._views):
            self._changed()


class Form(anywidget.AnyWidget):
    """The choice of a component's backend, and the fields of that backend.

    Its state holds what may be shown, never what was typed.

    Parameters
    ----------
    draft : Draft
        Where what is typed is kept.
    component : str
        Which component it is about.
    changed : callable
        Called after each change.
    """

    _esm = _module("form")

    spec = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    held: traitlets.List[str] = traitlets.List().tag(sync=True)
    problems = traitlets.Dict().tag(sync=True)

    def __init__(self, draft: Draft, component: str, changed: Callable[[], None]) -> None:
        super().__init__()
        self._draft = draft
        self._component = component
        self._changed = changed
        self.on_msg(self._received)
        self.refresh()

    def refresh(self) -> None:
        """Show what the draft holds now."""
        draft, component = self._draft, self._component
        kind, own = draft.kind(component), draft.source(component) == component
        words = component.replace("_", " ")
        shown, held = draft.shown(component)
        with self.hold_sync():
            self.spec = {
                "legend": "all four components" if draft.same else words,
                "about": describe(kind)
                if own
                else f"As the {draft.source(component)}: {kind}.".replace("_", " "),
                "chosen": draft.chosen[component],
                "choices": [[each, each.replace("_", " ")] for each in draft.choices(component)],
                "fields": [
                    {name: getattr(field, name) for name in field.__struct_fields__}
                    for field in (fields_of(kind) if own else [])
                ],
                "open": kind not in ("memory", "sqlite", "file"),
            }
            self.shown, self.held = (shown, held) if own else ({}, [])
            self.problems = draft.problems(component)

    def _received(self, _: object, message: dict[str, Any], __: object) -> None:
        name, text = str(message.get("name")), str(message.get("text"))
        if name == "backend_type":
            self._draft.choose(self._component, text)
        else:
            self._draft.write(self._component, name, text)
        self._changed()


class Code(anywidget.AnyWidget):
    """A text with a button that copies it."""

    _esm = _module("code")

    label = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)


class Grid(anywidget.AnyWidget):
    """One page of a table's rows.

    Parameters
    ----------
    page : callable
        Gives the texts of so many rows, from the first one on.
    sort : callable
        Called with a column's name, empty for none, and whether it descends.
    """

    _esm = _module("grid")

    columns: traitlets.List[list[object]] = traitlets.List().tag(sync=True)
    total = traitlets.Int().tag(sync=True)
    order = traitlets.List(["", False]).tag(sync=True)
    page_rows = traitlets.Int(50).tag(sync=True)
    version = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        page: Callable[[int, int], list[list[str | None]]],
        sort: Callable[[str, bool], None],
    ) -> None:
        super().__init__()
        self._page = page
        self._sort = sort
        self.on_msg(self._received)

    def show(self, columns: list[list[object]], total: int, order: tuple[str, bool]) -> None:
        """Show other rows, from the first one on."""
        with self.hold_sync():
            self.columns, self.total, self.order = columns, total, list(order)
            self.version += 1

    def _received(self, _: object, message: dict[str, Any], __: object) -> None:
        if message.get("ask") == "sort":
            self._sort(str(message.get("column")), bool(message.get("descending")))
        elif message.get("ask") == "rows":
            first = max(0, int(message.get("first", 0)))
            rows = self._page(first, self.page_rows)
            self.send({"first": first, "turn": message.get("turn"), "rows": rows})


def describe(kind: str) -> str:
    """What a backend type is, in a line."""
    options = BACKENDS.get(kind)
    about = "" if options is None else options.__doc__ or ""
    return about.strip().replace("``", "")
