"""The tab *Workers*: start, scale and stop them; see whether they live and what they do.

Not here: what a worker is (`omniq_nb.core.workers`).
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import psutil
from ipywidgets import HTML, BoundedIntText, Box, Button, Dropdown, Text, VBox

from omniq_nb.core.engine import Engine
from omniq_nb.core.executors import EXECUTORS
from omniq_nb.core.launch import launcher_kinds
from omniq_nb.liveness import is_gone, is_here, seen_now
from omniq_nb.models.task import State, WorkerInfo
from omniq_nb.notebook.faces import span
from omniq_nb.notebook.gauges import calm, health
from omniq_nb.notebook.live import Watch, watch
from omniq_nb.notebook.panel.drawing import dot
from omniq_nb.notebook.panel.errands import Status, errand, queries_ready
from omniq_nb.notebook.panel.pieces import SHORT
from omniq_nb.notebook.theme import COLOURS
from omniq_nb.sync import OmniQ

EVERY = 1.0
"""Seconds between two looks at the workers."""

MOST = 50
"""Workers that are shown: those at work, then those that are gone, the newest first."""

MOST_TASKS = 5
"""Tasks that are named of each worker."""

MANY_TASKS = 500
"""Running tasks that are looked at."""

LOG_TAIL = 8 * 1024
"""Bytes of the end of a log that are shown."""

NO_LOG = ("nobody", "")
"""What is chosen while no log is looked at."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as it is shown.

    Attributes
    ----------
    info : WorkerInfo
        What it says of itself.
    health : str
        ``"running"``, ``"silent for 8 s"``, ``"dead"``, ``"stopped"``...
    silent : int
        Seconds since its last heartbeat.
    tasks : tuple of str
        What it works on: name and seconds.
    cpu, memory : float or None
        Of its process, if that is on this machine: share of one core, bytes.
    """

    info: WorkerInfo
    health: str
    silent: int
    tasks: tuple[str, ...] = ()
    cpu: float | None = None
    memory: float | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing is to be expected of it."""
        return is_gone(self.info)


class Crew:
    """Looks at the workers of a queue and at their processes.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._processes: dict[int, psutil.Process] = {}

    async def look(self) -> tuple[Seen, ...]:
        """The workers, those at work first."""
        now = time.time()
        infos = seen_now(await self._engine.stores.task_queue.workers())
        asked = any(info.running for info in infos) and queries_ready()
        tasks = await self._tasks(now) if asked else {}
        here = [info for info in infos if is_here(info) and not is_gone(info)]
        load = await asyncio.to_thread(self._load, here)
        found = [
            Seen(
                info=calm(info),
                health=health(info, now),
                silent=max(0, round(now - info.heartbeat_at)),
                tasks=tuple(tasks.get(info.id, ())),
                cpu=load.get(info.id, (None, None))[0],
                memory=load.get(info.id, (None, None))[1],
            )
            for info in infos
        ]
        found.sort(key=lambda worker: (worker.gone, -worker.info.started_at))
        return tuple(
            # How long one that is gone is silent is of no interest, and would never end.
            msgspec.structs.replace(worker, silent=0) if worker.gone else worker
            for worker in found[:MOST]
        )

    async def _tasks(self, now: float) -> dict[str, list[str]]:
        """What each worker works on."""
        table = await self._engine.explorer.table(
            "tasks",
            columns=["name", "worker", "started_at"],
            where={"state": str(State.RUNNING)},
            order="started_at",
            limit=MANY_TASKS,
        )
        found: dict[str, list[str]] = {}
        for row in table.to_pylist():
            started = row["started_at"]
            took = "" if started is None else f" {span(max(0.0, now - started.timestamp()))}"
            found.setdefault(row["worker"], []).append(row["name"] + took)
        return found

    def _load(self, infos: Sequence[WorkerInfo]) -> dict[str, tuple[float, float]]:
        """CPU and memory of the processes of these workers of this machine."""
        found = {}
        known, self._processes = self._processes, {}
        for pid in {info.pid for info in infos}:
            try:
                process = known.get(pid) or psutil.Process(pid)
                # The first answer is 0: the share is that since the last time.
                found[pid] = (process.cpu_percent() / 100, float(process.memory_info().rss))
            except psutil.Error:  # it has just ended
                continue
            self._processes[pid] = process
        return {info.id: found[info.pid] for info in infos if info.pid in found}


class Workers:
    """The tab.

    Parameters
    ----------
    oq : OmniQ
        Whose workers.
    """

    def __init__(self, oq: OmniQ) -> None:
        self._oq = oq
        self._crew = Crew(oq._caller.engine)
        settings = oq.config.settings
        self.kind = Dropdown(
            options=sorted({*EXECUTORS, *launcher_kinds()}),
            value=settings.default_worker,
            description="Kind",
            style=SHORT,
        )
        most = settings.max_workers
        self.number = BoundedIntText(
            min(settings.thread_workers, most), min=1, max=most, description="At once", style=SHORT
        )
        self.number.layout.width = "140px"
        self.queues = Text(
            settings.default_queue, description="Queues", continuous_update=False, style=SHORT
        )
        self.start = Button(description="Start", button_style="primary")
        self.scale = Button(description="Scale", tooltip="Change the number of this kind")
        self.stop = Button(description="Stop", tooltip="Stop all workers of this kind")
        self.table = HTML()
        self.log_of = Dropdown(options=[NO_LOG], description="Log of", style=SHORT)
        self.log = HTML()
        self._status = Status()
        self.view = VBox(
            [
                Box([self.kind, self.number, self.queues]).add_class("omniq-flow"),
                Box([self.start, self.scale, self.stop]).add_class("omniq-flow"),
                self._status.view,
                self.table,
                self.log_of,
                self.log,
            ]
        )
        self.start.on_click(self._start)
        self.scale.on_click(self._scale)
        self.stop.on_click(self._stop)

    def watch(self) -> Sequence[Watch[Any]]:
        """Keep the table up to date until it is stopped."""
        look, show, doubt = self._crew.look, self._show, self._status.doubt
        return [
            watch(self._oq, look, show, EVERY, trouble=doubt, widget=self.table),
            watch(self._oq, self._read_log, self._show_log, EVERY, widget=self.log),
        ]

    def _show(self, workers: Sequence[Seen]) -> None:
        self.table.value = _table(workers)
        logs = [NO_LOG, *((f"process {w.info.pid}", w.info.log) for w in workers if _has_log(w))]
        if list(self.log_of.options) != logs:
            chosen = self.log_of.value
            self.log_of.options = logs
            self.log_of.value = chosen if chosen in dict(logs).values() else NO_LOG[1]

    async def _read_log(self) -> str:
        return await asyncio.to_thread(tail_of, self.log_of.value) if self.log_of.value else ""

    def _show_log(self, text: str) -> None:
        shown = f'<pre class="omniq-text" aria-label="Log" tabindex="0">{escape(text)}</pre>'
        self.log.value = shown if text else ""

    # ---------------------------------------------------------------- clicks

    def _start(self, button: Button) -> None:
        queues = [name.strip() for name in self.queues.value.split(",") if name.strip()]
        kind, number = self.kind.value, self.number.value
        work = self._oq.workers._async.start(number, kind, queues)
        here = kind in EXECUTORS
        said = f"{kind} worker: {number} at once" if here else f"{number} {kind} workers"
        self._do(button, work, lambda _: said)

    def _scale(self, button: Button) -> None:
        number = self.number.value
        work = self._oq.workers._async.scale(number, self.kind.value)
        self._do(button, work, lambda _: f"{number} at once")

    def _stop(self, button: Button) -> None:
        kind = self.kind.value
        work = self._oq.workers._async.stop(kind)
        self._do(button, work, lambda _: f"All {kind} workers have stopped")

    def _do(
        self, button: Button, work: Coroutine[Any, Any, Any], said: Callable[[Any], str]
    ) -> None:
        button.disabled = True
        self._status.say("")
        errand(
            work,
            lambda value: self._status.say(said(value)),
            self._status.complain,
            lambda: setattr(button, "disabled", False),
        )


def tail_of(path: str) -> str:
    """The last lines of a log, or why it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL))
            return file.read().decode(errors="replace") or "It is empty."
    except OSError as error:
        return f"It cannot be read: {error}"


def _has_log(worker: Seen) -> bool:
    """Whether this machine has its log. The name is from the store, so it must be that of one."""
    return worker.info.log.endswith(".log") and is_here(worker.info)


_HEALTH: Mapping[str, State] = {
    "running": State.SUCCEEDED,
    "silent": State.CANCELLED,
    "dead": State.FAILED,
}
_HEAD = ("kind", "queues", "state", "heartbeat", "at once", "done", "failed", "CPU", "memory")
_NUMBERS = ("at once", "done", "failed", "CPU", "memory")


def _table(workers: Sequence[Seen]) -> str:
    if not workers:
        return '<p class="omniq-quiet">No worker was ever started here.</p>'
    head = "".join(
        f'<th scope="col"{_number(name)}>{name}</th>' for name in (*_HEAD, "works on", "process")
    )
    rows = "".join(f"<tr>{_row(worker)}</tr>" for worker in workers)
    return (
        '<div class="omniq-wide" role="group" aria-label="Workers" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(worker: Seen) -> str:
    info = worker.info
    colour = COLOURS[_HEALTH.get(worker.health.partition(" ")[0], State.QUEUED)]
    cells = (
        escape(info.kind),
        escape(", ".join(info.queues)),
        dot(colour) + escape(worker.health),
        "" if worker.gone else f"{worker.silent} s ago",
        f"{info.running:,} of {info.concurrency:,}",
        f"{info.succeeded:,}",
        f"{info.failed:,}",
        "" if worker.cpu is None else f"{worker.cpu:.0%}",
        "" if worker.memory is None else f"{worker.memory / 2**20:,.0f} MB",
    )
    named = [escape(task) for task in worker.tasks[:MOST_TASKS]]
    if len(worker.tasks) > MOST_TASKS:
        named.append(f"and {len(worker.tasks) - MOST_TASKS} more")
    return (
        "".join(f"<td{_number(name)}>{cell}</td>" for name, cell in zip(_HEAD, cells, strict=True))
        + f'<td class="omniq-text">{"<br>".join(named)}</td>'
        + f'<td class="omniq-quiet">{escape(f"{info.pid} on {info.host}")}</td>'
    )


def _number(name: str) -> str:
    return ' class="omniq-number"' if name in _NUMBERS else ""
