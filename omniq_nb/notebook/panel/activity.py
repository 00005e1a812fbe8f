"""The tab *Live*: what waits, how fast tasks end, how long they wait, who ran what, what failed.

Only a bounded number of the newest tasks is looked at, and drawn as a bounded number of marks,
however much goes on.

Not here: how it is drawn (`omniq_nb.notebook.panel.drawing`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ipywidgets import HTML, Box, Button, Select, VBox

from omniq_nb.core.client import counts_by_queue
from omniq_nb.core.engine import Engine
from omniq_nb.models.task import State
from omniq_nb.notebook.gauges import UNKNOWN, first_line
from omniq_nb.notebook.live import Watch, watch
from omniq_nb.notebook.panel import drawing
from omniq_nb.notebook.panel.drawing import Activity, Bar, Recent
from omniq_nb.notebook.panel.errands import Status, errand, queries_ready
from omniq_nb.sync import OmniQ

if TYPE_CHECKING:
    import pyarrow as pa

EVERY = 1.0
"""Seconds between two looks at queues and results; failures are looked at half as often."""

SPAN = 300.0
"""Seconds that are looked back."""

BINS = 60
"""Bars and points of a chart."""

NEWEST = 20_000
"""Results that are looked at; if there are more, less time is looked back."""

BARS = 300
"""Tasks in the timeline."""

WORKERS = 12
"""Workers in the timeline."""

LANES = 8
"""Tasks of one worker that are drawn beside each other."""

FAILED = 2_000
"""Failed tasks whose errors are grouped: the newest ones."""

ERRORS = 20
"""Groups of failures that are offered."""


class Gauge:
    """Looks at what goes on, a bounded amount of work at a time.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def look(self) -> Activity:
        """What goes on."""
        now = time.time()
        counts = counts_by_queue(await self._engine.stores.task_queue.counts())
        queues = tuple((queue, tuple(states.items())) for queue, states in counts.items())
        if not queries_ready():
            return Activity(queues=queues, looked=False)
        ended = await self._engine.explorer.table(
            "results",
            columns=["worker", "state", "created_at", "started_at", "finished_at"],
            since=now - SPAN,
            order="-finished_at",
            limit=NEWEST,
        )
        running = None
        if any(states.get(State.RUNNING) for states in counts.values()):
            running = await self._engine.explorer.table(
                "tasks",
                columns=["worker", "started_at"],
                where={"state": str(State.RUNNING)},
                order="-started_at",
                limit=BARS,
            )
        return Activity(
            queues=queues,
            recent=await asyncio.to_thread(recent, ended, running, now),
        )

    async def failures(self) -> tuple[tuple[str, int], ...]:
        """The most frequent errors of tasks that failed, and how many tasks each has."""
        counts = await self._engine.stores.task_queue.counts()
        failed = any(count for (_, state), count in counts.items() if state is State.FAILED)
        if not failed or not queries_ready():
            return ()
        errors = Counter(kind for _, kind in await self._failed(FAILED))
        return tuple(errors.most_common(ERRORS))

    async def failed_with(self, kind: str) -> list[str]:
        """The ids of all tasks that failed with this error."""
        return [task_id for task_id, error in await self._failed(None) if error == kind]

    async def _failed(self, limit: int | None) -> list[tuple[str, str]]:
        """Failed tasks, the newest first: id, and the first line of the error."""
        table = await self._engine.explorer.table(
            "tasks",
            columns=["task_id", "error"],
            where={"state": str(State.FAILED)},
            order="-finished_at",
            limit=limit,
        )
        errors = table.column("error").to_pylist()
        kinds = [first_line(error or UNKNOWN) for error in errors]
        return list(zip(table.column("task_id").to_pylist(), kinds, strict=True))


def recent(ended: "pa.Table", running: "pa.Table | None", now: float) -> Recent | None:
    """What the newest tasks tell, by time.

    Parameters
    ----------
    ended, running : Arrow table
        Rows of the views `results` and `tasks`, the newest first.
    now : float
        The end of what is looked at.
    """
    bars = _bars(ended, running, now)
    if not ended.num_rows and not bars:
        return None
    finished = _seconds(ended, "finished_at")
    # With very many tasks the newest ones do not reach back so far.
    span = SPAN if ended.num_rows < NEWEST else max(1.0, now - float(finished.min()))
    width = span / BINS
    end = (np.floor(now / width) + 1) * width  # bins stay where they are while time goes on
    place = BINS - 1 - np.floor((end - finished) / width).astype(int)
    waited = _seconds(ended, "started_at") - _seconds(ended, "created_at")
    states = np.array(ended.column("state").to_pylist(), dtype=object)
    rates = tuple(
        (
            state,
            tuple(
                (np.bincount(place[(states == state) & (place >= 0)], minlength=BINS) / width)
                .round(4)
                .tolist()
            ),
        )
        for state in State
        if state.final and (states == state).any()
    )
    return Recent(
        span=span,
        rates=rates,
        waits=_quantiles(place, waited),
        bars=tuple(bar for bar in bars if bar.end > now - span),
        now=now,
    )


def _quantiles(place: Any, waited: Any) -> tuple[tuple[float, float] | None, ...]:
    """The median and the 95th percentile of the waiting, in each bin."""
    found: list[tuple[float, float] | None] = [None] * BINS
    known = ~np.isnan(waited) & (place >= 0)
    for at in np.unique(place[known]):
        middle, high = np.quantile(np.maximum(waited[known & (place == at)], 0.0), [0.5, 0.95])
        found[at] = (round(float(middle), 4), round(float(high), 4))
    return tuple(found)


def _bars(ended: "pa.Table", running: "pa.Table | None", now: float) -> list[Bar]:
    """The newest tasks of the busiest workers, each in a lane of its worker."""
    newest = ended.slice(0, BARS)
    begins, ends = _seconds(newest, "started_at"), _seconds(newest, "finished_at")
    workers, states = newest.column("worker").to_pylist(), newest.column("state").to_pylist()
    rows = [
        (worker, float(begin), float(end), State(state))
        for worker, begin, end, state in zip(workers, begins, ends, states, strict=True)
        if worker is not None and begin == begin
    ]
    if running is not None:
        started = _seconds(running, "started_at")
        rows += [
            (worker, float(begin), now, State.RUNNING)
            for worker, begin in zip(running.column("worker").to_pylist(), started, strict=True)
            if worker is not None and begin == begin
        ]
    busiest = [w for w, _ in Counter(worker for worker, *_ in rows).most_common(WORKERS)]
    lanes: dict[str, list[float]] = {worker: [] for worker in busiest}
    bars = []
    for worker, begin, end, state in sorted(rows, key=lambda row: row[1]):
        if worker in lanes:
            lane = _lane(lanes[worker], begin, end)
            bars.append(Bar(worker=worker, lane=lane, begin=begin, end=end, state=state))
    return bars


def _lane(busy_until: list[float], begin: float, end: float) -> int:
    """The first lane that is free then."""
    for lane, until in enumerate(busy_until):
        if until <= begin + 1e-6:
            busy_until[lane] = end
            return lane
    if len(busy_until) < LANES:
        busy_until.append(end)
        return len(busy_until) - 1
    return LANES - 1


def _seconds(table: "pa.Table", column: str) -> Any:
    """Moments as seconds since 1970; NaN where there is none."""
    moments = table.column(column).to_numpy()
    return np.where(np.isnat(moments), np.nan, moments.astype("datetime64[us]").astype(float) / 1e6)


class Live:
    """The tab.

    Parameters
    ----------
    oq : OmniQ
        Whose tasks.
    """

    def __init__(self, oq: OmniQ) -> None:
        self._oq = oq
        self._gauge = Gauge(oq._caller.engine)
        self._groups: list[str] = []
        self.charts = HTML()
        self.failures = Select(description="Failures", rows=5, disabled=True)
        self.failures.layout.width = "auto"
        self.requeue = Button(description="Queue them again", disabled=True)
        self._status = Status()
        self.view = VBox(
            [
                self.charts,
                self.failures,
                Box([self.requeue]).add_class("omniq-flow"),
                self._status.view,
            ]
        )
        self.requeue.on_click(self._requeue)

    def watch(self) -> Sequence[Watch[Any]]:
        """Keep it up to date until it is stopped."""
        look, show, doubt = self._gauge.look, self._show, self._status.doubt
        count, offer = self._gauge.failures, self._offer
        return [
            watch(self._oq, look, show, EVERY, trouble=doubt, widget=self.charts),
            watch(self._oq, count, offer, 2 * EVERY, widget=self.failures),
        ]

    def _show(self, activity: Activity) -> None:
        self.charts.value = drawing.drawn(activity)

    def _offer(self, groups: Sequence[tuple[str, int]]) -> None:
        """Offer these failures, and keep the one that is chosen."""
        index = self.failures.index
        chosen = None if index is None or not self._groups else self._groups[index]
        self._groups = [kind for kind, _ in groups]
        with self.failures.hold_sync():
            self.failures.options = [f"{count:,}: {kind}" for kind, count in groups]
            if chosen in self._groups:
                self.failures.index = self._groups.index(chosen)
            elif self._groups:
                self.failures.index = 0
            self.failures.disabled = not groups
        self.requeue.disabled = not groups

    def _requeue(self, _: Button) -> None:
        index = self.failures.index
        if index is None or index >= len(self._groups):
            return
        self.requeue.disabled = True
        errand(
            self._requeued(self._groups[index]),
            lambda count: self._status.say(f"{count:,} tasks are queued again"),
            self._status.complain,
            lambda: setattr(self.requeue, "disabled", not self._groups),
        )

    async def _requeued(self, kind: str) -> int:
        return await self._oq._async.requeue(*await self._gauge.failed_with(kind))
