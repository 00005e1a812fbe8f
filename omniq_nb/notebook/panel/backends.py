"""The tab *Backends*: choose where the four components are kept, try it, connect, save.

Not here: what was typed and what it means (`omniq_nb.notebook.panel.draft`), and how a
configuration is tried (`omniq_nb.storage.probe`).
"""

import asyncio
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from ipywidgets import HTML, Box, Button, Checkbox, Text, VBox

from omniq_nb.config import OmniQConfig
from omniq_nb.config.model import COMPONENTS
from omniq_nb.errors import OmniQError
from omniq_nb.models.task import State
from omniq_nb.notebook.live import Watch
from omniq_nb.notebook.panel.draft import Draft
from omniq_nb.notebook.panel.drawing import dot
from omniq_nb.notebook.panel.errands import Status, errand
from omniq_nb.notebook.panel.pieces import SHORT, Code, Form
from omniq_nb.notebook.theme import COLOURS
from omniq_nb.storage.probe import Promise, probe
from omniq_nb.sync import OmniQ

FILE = "omniq.yaml"
"""Where a configuration is saved unless told otherwise."""


class Backends:
    """The tab.

    Parameters
    ----------
    config : OmniQConfig or None
        What to begin with; unless given, what the environment says.
    connected : callable
        Called with each client that is made here, on omniq's loop.
    """

    def __init__(self, config: OmniQConfig | None, connected: Callable[[OmniQ], None]) -> None:
        self._connected = connected
        self.draft = Draft(config)
        self.forms = {
            component: Form(self.draft, component, self._edited) for component in COMPONENTS
        }
        self.same = Checkbox(self.draft.same, description="All four the same", indent=False)
        self.test = Button(description="Test connection")
        self.connect = Button(description="Connect", button_style="primary")
        self.file = Text(
            FILE,
            description="File",
            continuous_update=False,
            style=SHORT,
        )
        self.save = Button(description="Save YAML")
        self.load = Button(description="Load YAML")
        self.promises = HTML()
        self.yaml = Code(label="YAML")
        self.python = Code(label="Python")
        self._status = Status()
        self.view = VBox(
            [
                self.same,
                Box(list(self.forms.values())).add_class("omniq-forms"),
                Box([self.test, self.connect]).add_class("omniq-flow"),
                self._status.view,
                self.promises,
                Box([self.yaml, self.python]).add_class("omniq-forms"),
                Box([self.file, self.save, self.load]).add_class("omniq-flow"),
            ]
        )
        self.same.observe(self._same_changed, "value")
        self.test.on_click(self._test)
        self.connect.on_click(self._connect)
        self.save.on_click(self._save)
        self.load.on_click(self._load)
        self._refresh()

    def watch(self) -> Sequence[Watch[Any]]:
        """Nothing here changes by itself."""
        return []

    # ---------------------------------------------------------------- what is chosen

    def _edited(self) -> None:
        self._status.say("")
        self._refresh()

    def _same_changed(self, change: dict[str, Any]) -> None:
        self.draft.same = bool(change["new"])
        self._edited()

    def _refresh(self) -> None:
        for component, form in self.forms.items():
            hidden = self.draft.same and component != COMPONENTS[0]
            form.layout.display = "none" if hidden else None
            form.refresh()
        try:
            config = self.draft.config()
        except OmniQError as error:
            self._show_texts(f"# {error}", f"# {error}")
            self.test.disabled = self.connect.disabled = self.save.disabled = True
            return
        self.test.disabled = self.connect.disabled = self.save.disabled = False
        try:
            self._show_texts(config.to_yaml(), config.to_python())
        except OmniQError as error:  # a password in clear
            self._show_texts(f"# {error}", f"# {error}")
            self.save.disabled = True

    def _show_texts(self, yaml: str, python: str) -> None:
        self.yaml.text, self.python.text = yaml, python

    # ---------------------------------------------------------------- what is done with it

    def _test(self, _: Button) -> None:
        self._busy(self.test, "Testing…")
        self.promises.value = ""
        errand(
            probe(self.draft.config()),
            self._tried,
            self._status.complain,
            lambda: self._free(self.test, "Test connection"),
        )

    def _tried(self, found: list[Promise]) -> None:
        self.promises.value = _promises(found)
        well = sum(promise.problem is None for promise in found)
        self._status.say(f"{well} of {len(found)} components work")

    def _connect(self, _: Button) -> None:
        self._busy(self.connect, "Connecting…")
        errand(
            asyncio.to_thread(OmniQ, self.draft.config()),
            self._made,
            self._status.complain,
            lambda: self._free(self.connect, "Connect"),
        )

    def _made(self, client: OmniQ) -> None:
        self._connected(client)
        self._status.say(f"Connected: {client.config.project_name}")

    def _busy(self, button: Button, word: str) -> None:
        button.disabled, button.description = True, word
        self._status.say("")

    def _free(self, button: Button, word: str) -> None:
        button.disabled, button.description = False, word

    def _save(self, _: Button) -> None:
        try:
            self.draft.config().to_yaml(self.file.value)
        except (OmniQError, OSError) as error:
            self._status.complain(str(error))
        else:
            self._status.say(f"Saved as {self.file.value}")

    def _load(self, _: Button) -> None:
        try:
            self.draft.load(OmniQConfig.from_yaml(self.file.value))
        except OmniQError as error:
            self._status.complain(str(error))
            return
        self.same.value = self.draft.same
        self._refresh()
        self._status.say(f"Loaded from {self.file.value}")


def _promises(found: Sequence[Promise]) -> str:
    """What came of trying the components, as a table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(promise.component.replace("_", " "))}</th>'
        f"<td>{escape(promise.backend_type)}</td><td>{_answer(promise)}</td>"
        f'<td class="omniq-text">{_said(promise)}</td></tr>'
        for promise in found
    )
    return (
        '<div class="omniq-wide" role="group" aria-label="Test connection" tabindex="0"><table>'
        '<thead><tr><th scope="col">component</th><th scope="col">backend</th>'
        '<th scope="col">works</th><th scope="col">what it promises</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _answer(promise: Promise) -> str:
    state = State.SUCCEEDED if promise.problem is None else State.FAILED
    word = f"yes, {1000 * promise.seconds:.0f} ms" if promise.problem is None else "no"
    return dot(COLOURS[state]) + word


def _said(promise: Promise) -> str:
    if promise.problem is not None:
        return f'<span class="omniq-problem">{escape(promise.problem)}</span>'
    lines = [f"<b>{escape(topic)}</b>: {escape(text)}" for topic, text in promise.promises.items()]
    place = f'<span class="omniq-quiet">{escape(promise.place)}</span>' if promise.place else ""
    return "<br>".join([*([place] if place else []), *lines])
