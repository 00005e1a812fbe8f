"""Cells that run as tasks: `%%task`'s card, its live output, and the variables that come back.

A card is drawn under the cell that submitted the task, and updated in place until the task is
over. What comes back is put into the notebook before anybody who waits for the task is told.

Not here: the magic's line (`omniq_nb.notebook.magics`), what travels (`omniq_nb.notebook.travel`).
"""

# Parts of IPython have no types.
# mypy: disable-error-code="no-untyped-call,attr-defined,union-attr"

import ast
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec

from omniq_nb.core.engine import Engine
from omniq_nb.core.handle import value_of
from omniq_nb.core.options import Options
from omniq_nb.core.outputs import Follower, Following, News, Piece
from omniq_nb.core.provenance import cell_id, notebook_path
from omniq_nb.errors import OmniQError, UnknownTask
from omniq_nb.liveness import process_start
from omniq_nb.models.result import Result
from omniq_nb.models.task import LIVE, State, Task
from omniq_nb.notebook import faces
from omniq_nb.notebook.cards import Canvas, canvas_here, kernel_shell
from omniq_nb.notebook.cellrun import UNPACKED, Parcel, run_cell
from omniq_nb.notebook.gauges import CellGauge, HandleGauge, handle_gauge
from omniq_nb.notebook.live import Watch, watch
from omniq_nb.notebook.travel import luggage, parsed
from omniq_nb.sync import Handle, OmniQ, _Caller

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

SHOWN = 8192
"""Characters of output on the card while the task runs: the newest. In the end it is all."""

log = logging.getLogger("omniq_nb.notebook")

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_DIGEST = re.compile(r"(?<= File \"<)([^>\n]+) [0-9a-f]{8}>")
_UNSET = object()


def plain(text: str) -> str:
    r"""What a terminal would show in the end, without colours.

    Examples
    --------
    >>> plain("\x1b[1m 10%\r 50%\rdone \x1b[0m\n")
    'done \n'
    """
    lines = _ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def variables(handle: Handle[Any]) -> Mapping[str, object]:
    """The variables that a cell's task gave back (`-o`). It must have succeeded.

    Parameters
    ----------
    handle : Handle
        Of the task: ``oq.handle(id)`` finds it again, also after a restart.
    """
    return _unpacked(handle._caller.engine, handle._wait(0)).variables


def _unpacked(engine: Engine, result: Result) -> Parcel:
    """The value of a cell and its variables."""
    collected: list[Parcel] = []
    token = UNPACKED.set(collected)
    try:
        value = value_of(engine, result)
    finally:
        UNPACKED.reset(token)
    return collected[0] if collected else Parcel(value, {})


class CellHandle(Handle[Any]):
    """The handle of a cell's task in a notebook, where its card stands already."""

    def __init__(self, caller: _Caller, task_id: str) -> None:
        super().__init__(caller, task_id)
        self._new = True

    def _ipython_display_(self) -> None:
        if self._new:
            self._new = False  # the cell gives it as its value
        else:
            super()._ipython_display_()


class Run:
    """One run of a cell as a task: brings its variables back, and keeps its card.

    Parameters
    ----------
    shell : InteractiveShell
        The notebook.
    handle : Handle
        The task.
    outputs : sequence of str
        The names of the variables that come back.
    """

    def __init__(
        self, shell: "InteractiveShell", handle: Handle[Any], outputs: Sequence[str]
    ) -> None:
        self.handle = handle
        self._shell = shell
        self._caller = handle._caller
        self._before = {name: shell.user_ns.get(name, _UNSET) for name in outputs}
        self._following: Following | None = None
        self._follower = Follower()
        self._pieces: SimpleQueue[Piece] = SimpleQueue()
        self._output = ""
        self._above = 0
        self._gauge = CellGauge(task=HandleGauge(id=handle.id, task=None))
        self._canvas: Canvas | None = None
        self._value_id: str | None = None
        self._watch: Watch[CellGauge] | None = None
        self._drawing = threading.RLock()

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self._gauge.over

    @property
    def state(self) -> State:
        """Where the task stood last."""
        task = self._gauge.task.task
        return State.QUEUED if task is None else task.state

    def open(self, *, card: bool, value: bool, notes: Sequence[str]) -> None:
        """Follow the task to its end.

        Parameters
        ----------
        card : bool
            Draw a card under the cell that is run now, and keep it up to date.
        value : bool
            Show the task's value below the card.
        notes : sequence of str
            What the card says besides.
        """
        if card:
            self._canvas = canvas_here()
            self._gauge = msgspec.structs.replace(self._gauge, notes=tuple(notes))
            self._draw(self._caller.stores(self._look()))
            if value:
                self._value_id = os.urandom(16).hex()
                _display({"text/html": ""}, {}, self._value_id, update=False)
        engine, loop = self._caller.engine, self._caller.loop
        self._following = loop.call(engine.outputs.follow(self.handle.id, self._told, past=False))
        if card:
            # Functions, not methods: as long as it is followed, nobody else holds it.
            self._watch = watch(
                self.handle,
                lambda: self._look(),
                lambda gauge: self._draw(gauge),
                trouble=lambda error: self._doubt(error),
            )
        if self.over:  # by now: it may have ended before there was anything to leave
            self._leave()

    # ---------------------------------------------------------------- while it runs

    async def _look(self) -> CellGauge:
        while not self._pieces.empty():
            self._output += self._follower.take(self._pieces.get())
        cut = max(0, len(self._output) - SHOWN)
        self._above, self._output = self._above + cut, self._output[cut:]
        above = f"[... {self._above:,} characters above ...]\n" if self._above else ""
        return msgspec.structs.replace(
            self._gauge, task=await self._stands(), output=above + plain(self._output)
        )

    async def _stands(self) -> HandleGauge:
        """Where the task stands. Its end is left to `_end`, which has the traceback as well."""
        now = await handle_gauge(self._caller.engine, self.handle.id, brief=True)
        if now.task is None or not now.over:
            return now
        if self._gauge.task.task is not None:
            return self._gauge.task
        return HandleGauge(id=now.id, task=msgspec.structs.replace(now.task, state=State.QUEUED))

    def _draw(self, gauge: CellGauge, trouble: str | None = None) -> None:
        """Draw it, unless the last state was drawn before."""
        with self._drawing:
            if not self.over:
                self._gauge = gauge
                if self._canvas is not None:
                    html, text = faces.html(gauge, trouble), faces.text(gauge)
                    self._canvas.draw({"text/html": html, "text/plain": text})

    def _doubt(self, error: OmniQError | None) -> None:
        self._draw(self._gauge, None if error is None else f"not up to date: {error}")

    # ---------------------------------------------------------------- at its end

    def _told(self, news: News) -> None:
        """Hear what is new, in any thread, and before whoever waits for the task is told."""
        if isinstance(news, Piece):
            if self._canvas is not None:
                self._pieces.put(news)
            return
        try:
            if isinstance(news, Result):
                self._end(news)
            elif isinstance(news, UnknownTask):
                self._lose(str(news))
            else:
                self._lose(
                    f"no longer followed, because the client was closed; the task is still "
                    f"known: oq.handle({self.handle.id!r})"
                )
        except Exception:  # whoever else waits for the task must be told all the same
            log.exception("the card of task %s was left as it is, by a defect", self.handle.id)
        self._before.clear()
        self._leave()

    def _leave(self) -> None:
        """Follow it no longer."""
        if self._watch is not None:
            self._watch.stop()
        if self._following is not None:
            self._caller.engine.outputs.forget(self._following)

    def _lose(self, trouble: str) -> None:
        self._draw(msgspec.structs.replace(self._gauge, over=True), trouble)

    def _end(self, result: Result) -> None:
        notes = [*self._gauge.notes]
        value: object = None
        if result.state is State.SUCCEEDED and (self._before or self._value_id is not None):
            try:
                parcel = _unpacked(self._caller.engine, result)
            except OmniQError as error:
                notes.append(f"What it gave cannot be opened here: {error}")
            else:
                value = parcel.value
                notes += self._bring_back(parcel.variables)
        gauge = CellGauge(
            task=_ended(result),
            output=plain(result.output or ""),
            traceback=_DIGEST.sub(r"\1>", result.traceback or ""),
            notes=tuple(notes),
            over=True,
        )
        self._draw(gauge)
        if value is not None and self._value_id is not None:
            # In a thread of its own: drawing it runs the value's code, which may take long.
            showing = threading.Thread(target=self._show_value, args=(value,), daemon=True)
            showing.start()

    def _bring_back(self, variables: Mapping[str, object]) -> Iterator[str]:
        """Put variables into the notebook. What there is to say of it."""
        names = self._shell.user_ns
        set_here = []
        for name, before in self._before.items():
            if name not in variables:
                yield f"{name} did not come back: the cell never set it."
            elif names.get(name, _UNSET) is not before:
                yield (
                    f"{name} was assigned anew here meanwhile, and stays as it is. The task's: "
                    f"omniq_nb.notebook.cells.variables(oq.handle({self.handle.id!r}))[{name!r}]"
                )
            else:
                names[name] = variables[name]
                set_here.append(name)
        if set_here:
            yield f"{', '.join(set_here)} came back."

    def _show_value(self, value: object) -> None:
        assert self._value_id is not None
        shown: list[Mapping[str, Any]] = []

        def keep(message: Mapping[str, Any]) -> None:
            shown.append(message["content"])

        # What a value displays by itself (widgets do) would go to whichever cell runs now.
        self._shell.display_pub.register_hook(keep)
        data, metadata = self._shell.display_formatter.format(value)
        self._shell.display_pub.unregister_hook(keep)
        if shown and not data:
            data, metadata = shown[0]["data"], shown[0]["metadata"]
        _display(data, metadata, self._value_id, update=True)


class Mark(msgspec.Struct, frozen=True):
    """Which cell a task is: its metadata, by which a kernel finds what another one submitted.

    Attributes
    ----------
    host : str
        The machine of the kernel.
    notebook : str or None
        The notebook's file, if the front end tells it.
    cell : str
        The cell's id, or a hash of its code if the front end tells none.
    pid : int
        The kernel's process.
    started : str or None
        When it started: `omniq_nb.liveness.process_start`.
    """

    host: str
    notebook: str | None
    cell: str
    pid: int = 0
    started: str | None = None

    @property
    def of_another_that_lives(self) -> bool:
        """Whether it is that of another kernel of this machine, which is still there."""
        if self.pid == os.getpid() or self.started is None:
            return False
        return process_start(self.pid) == self.started


class Left(msgspec.Struct, frozen=True):
    """A run of a cell that another kernel submitted, and that is not over."""

    task_id: str
    state: str
    mark: Mark


async def left(engine: Engine, mark: Mark, name: str | None) -> list[Left]:
    """The runs of a cell that are not over, whoever submitted them.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    mark : Mark
        The cell.
    name : str or None
        What the user calls it: runs of that name from the same notebook are meant, too.
    """
    counts = await engine.stores.task_queue.counts()
    if not any(count for (_, state), count in counts.items() if state in LIVE):
        return []
    table = await engine.explorer.table(
        "tasks",
        columns=["task_id", "name", "state", "metadata"],
        where={"state": [str(state) for state in LIVE]},
    )
    found = []
    for row in table.to_pylist():
        told = _mark_of(row["metadata"])
        if told is None or told.notebook != mark.notebook:
            continue
        if told.cell == mark.cell or (name is not None and row["name"] == name):
            found.append(Left(row["task_id"], row["state"], told))
    return found


def _mark_of(metadata: str) -> Mark | None:
    if '"cell"' not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata, type=Mark)
    except msgspec.ValidationError:  # the user's own
        return None


class Cells:
    """The runs of a notebook's cells, so that no cell runs twice at the same time.

    Parameters
    ----------
    shell : InteractiveShell
        The notebook.
    """

    def __init__(self, shell: "InteractiveShell") -> None:
        self._shell = shell
        self._runs: dict[str, Run] = {}
        self._looked: set[tuple[str, str]] = set()  # which cells of which client

    def run(
        self,
        client: OmniQ,
        cell: str,
        name: str | None,
        inputs: Sequence[str],
        outputs: Sequence[str],
        options: Options,
    ) -> Handle[Any]:
        """Submit a cell, in place of its run before if that is not over.

        Parameters
        ----------
        client : OmniQ
            Where to.
        cell : str
            The code below the magic's line.
        name : str or None
            What the user calls it.
        inputs, outputs : sequence of str
            Variables that travel besides those that are read; variables that come back.
        options : Options
            Of the task.

        Raises
        ------
        NotSerializable
            What it needs cannot travel.
        ConfigError
            The code is no Python, or an option is wrong.
        """
        source = self._shell.transform_cell(cell)
        tree = parsed(source, cell)
        label = name or f"cell {self._shell.displayhook.prompt_count}"
        packed = luggage(tree, self._shell.user_ns, label, inputs, outputs)
        named: Options = {**options, "name": label}
        keys, mark = self._keys(cell, name), self._mark(cell)
        notes = self._cancel(client, keys)
        if mark is not None:
            named["metadata"] = msgspec.to_builtins(mark)
            notes += self._cancel_left(client, keys, mark, name)
        function = client.task(**named)(run_cell)
        handle: Handle[Any] = function.submit(source, packed)
        in_kernel = kernel_shell() is not None
        if in_kernel:
            handle = CellHandle(handle._caller, handle.id)
        run = Run(self._shell, handle, outputs)
        self._runs |= dict.fromkeys(keys, run)
        value = bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
        quiet = self._shell.displayhook.semicolon_at_end_of_expression(cell)
        run.open(card=in_kernel, value=value and not quiet, notes=notes)
        return handle

    def _keys(self, cell: str, name: str | None) -> list[str]:
        """What tells a cell from others: the front end's id if it says one, else the code."""
        place = cell_id(self._shell)
        keys = [f"code {cell}" if place is None else f"cell {place}"]
        return keys if name is None else [*keys, f"name {name}"]

    def _mark(self, cell: str) -> Mark | None:
        """What tells the cell from all others in the world, if the front end says enough."""
        place, notebook = cell_id(self._shell), notebook_path(self._shell)
        if place is None:
            if notebook is None:
                return None
            code = cell.encode("utf-8", "surrogatepass")
            place = f"code {blake2b(code, digest_size=8).hexdigest()}"
        pid = os.getpid()
        return Mark(socket.gethostname(), notebook, place, pid, process_start(pid))

    def _cancel_left(
        self, client: OmniQ, keys: Sequence[str], mark: Mark, name: str | None
    ) -> Iterator[str]:
        """Cancel what this cell has submitted from a kernel before. What there is to say of it."""
        engine = client._caller.engine
        looked = {(engine.identity, key) for key in keys}
        if looked <= self._looked:
            return
        self._looked |= looked
        for run in client._caller.loop.call(left(engine, mark, name)):
            if run.mark.host != mark.host:  # perhaps a colleague's copy of the notebook
                yield (
                    f"This cell was run on {run.mark.host}, too, and is {run.state} there: "
                    f"%omniq cancel {run.task_id} would end it."
                )
            elif run.mark.of_another_that_lives:
                yield (
                    f"This cell was run in another kernel, too, which still lives, and is "
                    f"{run.state} there: %omniq cancel {run.task_id} would end it."
                )
            elif client.cancel(run.task_id):
                yield "The run before, of an earlier kernel, was cancelled."

    def _cancel(self, client: OmniQ, keys: Sequence[str]) -> list[str]:
        """Cancel the runs before. What there is to say of them."""
        self._runs = {key: run for key, run in self._runs.items() if not run.state.final}
        notes = []
        for run in dict.fromkeys(self._runs[key] for key in keys if key in self._runs):
            closed = run.handle._caller.closed
            if client.cancel(run.handle.id) if closed else run.handle.cancel():
                notes.append("The run before was cancelled.")
                if run.state is State.RUNNING:
                    notes.append("In a thread it goes on until it calls current_task().check().")
        return notes


def _ended(result: Result) -> HandleGauge:
    """What a card says of an ended task, without asking a store that may be closed by now."""
    task = Task(
        id=result.task_id,
        name=result.name,
        state=result.state,
        attempt=result.attempt,
        worker=result.worker,
        started_at=result.started_at,
        finished_at=result.finished_at,
        error=result.error,
    )
    duration = None
    if result.started_at is not None and result.finished_at is not None:
        duration = result.finished_at - result.started_at
    return HandleGauge(id=result.task_id, task=task, duration=duration)


def _display(
    data: Mapping[str, Any], metadata: Mapping[str, Any], display_id: str, *, update: bool
) -> None:
    from IPython.display import publish_display_data

    publish_display_data(
        data=data, metadata=metadata, transient={"display_id": display_id}, update=update
    )
