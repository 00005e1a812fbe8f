"""What the tab key offers after `%omniq`, `%%task` and `%omniq_sql`.

Commands, options, paths of YAML files, names of variables, and ids of tasks and batches if the
store says them at once.
"""

import asyncio
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from omniq_nb.core.executors import EXECUTORS
from omniq_nb.errors import OmniQError
from omniq_nb.explore import VIEWS
from omniq_nb.models.task import LIVE, State
from omniq_nb.notebook.magics import COMMANDS, OmniqMagics, parser_of
from omniq_nb.sync import Batch, Handle, OmniQ

PATIENCE = 0.5
"""Seconds that a store has for its answer. Whoever presses the tab key does not wait longer."""

OFFERED = 50
"""Ids that are offered at the most, the newest ones."""

CANCELLABLE = tuple(map(str, LIVE))
REQUEUEABLE = tuple(map(str, (State.FAILED, State.CANCELLED, State.EXPIRED)))


class Event(Protocol):
    """What IPython tells a completer."""

    command: str
    symbol: str
    text_until_cursor: str


class Completer:
    """Completes the lines of one notebook's magics.

    Parameters
    ----------
    magics : OmniqMagics
        Whose notebook and client it is.
    """

    def __init__(self, magics: OmniqMagics) -> None:
        self._magics = magics

    def __call__(self, _shell: object, event: Event) -> list[str]:
        """Give what may stand where the cursor is."""
        words = event.text_until_cursor.split()
        if event.text_until_cursor[-1:].strip():
            words.pop()  # what is being typed
        magic = event.command.lstrip("%")
        if magic == "omniq":
            return list(self._omniq(words[1:], event.symbol))
        options = _options(getattr(OmniqMagics, magic))
        return [*options, *(self._variables() if magic == "task" else VIEWS)]

    def _omniq(self, words: list[str], symbol: str) -> Iterator[str]:
        if not words:
            yield from sorted({name.partition(" ")[0] for name in COMMANDS})
            return
        if words == ["workers"]:
            yield from (name.partition(" ")[2] for name in COMMANDS if name.startswith("workers "))
            return
        name = " ".join(words[:2] if words[0] == "workers" else words[:1])
        if name not in COMMANDS:
            return
        if words[-1] in ("--kind", "-k"):
            yield from EXECUTORS
            return
        yield from _options(COMMANDS[name])
        match name:
            case "connect":
                yield from _paths(symbol)
            case "tasks":
                yield from (f"{column}=" for column in VIEWS["tasks"].names)
            case "cancel":
                yield from self._tasks(CANCELLABLE)
            case "retry":
                yield from self._tasks(REQUEUEABLE)

    def _variables(self) -> list[str]:
        return [name for name in self._magics.names if not name.startswith("_")]

    def _tasks(self, states: tuple[str, ...]) -> Iterator[str]:
        for name in self._variables():
            if isinstance(self._magics.names[name], Handle | Batch):
                yield name
        try:
            client = self._magics.existing()
        except OmniQError:
            client = None
        if client is not None:
            yield from _stored(client, states)


def _stored(client: OmniQ, states: tuple[str, ...]) -> list[str]:
    """Batches and tasks in these states, if the store says them at once."""
    caller = client._caller
    looking = asyncio.run_coroutine_threadsafe(
        caller.engine.explorer.table(
            "tasks",
            columns=("batch", "task_id"),
            where={"state": states},
            order="-created_at",
            limit=OFFERED,
        ),
        caller.loop.loop,
    )
    try:
        rows = looking.result(PATIENCE)
    except (concurrent.futures.TimeoutError, OmniQError):
        looking.cancel()
        return []
    batches = dict.fromkeys(name for name in rows["batch"].to_pylist() if name is not None)
    return [*batches, *rows["task_id"].to_pylist()]


def _options(command: object) -> list[str]:
    return [
        option
        for action in parser_of(command)._actions
        for option in action.option_strings
        if option.startswith("--")
    ]


def _paths(start: str) -> Iterator[str]:
    """Folders and YAML files whose path begins so."""
    folder, _, name = start.rpartition("/")
    place = Path(folder or ("/" if start.startswith("/") else ".")).expanduser()
    if not place.is_dir():
        return
    for path in sorted(place.iterdir()):
        if path.name.startswith(name) and not path.name.startswith("."):
            shown = start[: len(start) - len(name)] + path.name
            if path.is_dir():
                yield f"{shown}/"
            elif path.suffix in (".yaml", ".yml"):
                yield shown
