"""What stands on a card: asked of the stores, a bounded amount of work at a time.

Not here: how it looks (`omniq_nb.notebook.faces`), and when it is asked (`omniq_nb.notebook.live`).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from omniq_nb.config import OmniQConfig
from omniq_nb.config.model import COMPONENTS
from omniq_nb.core.client import counts_by_queue
from omniq_nb.core.engine import Engine
from omniq_nb.core.worker import BEAT
from omniq_nb.errors import ConfigError
from omniq_nb.liveness import is_gone, seen_now, unserved
from omniq_nb.models.event import EventType
from omniq_nb.models.task import LIVE, State, Task, WorkerInfo

ORDER = (
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
    State.EXPIRED,
    State.RUNNING,
    State.QUEUED,
    State.BLOCKED,
)
"""The states as bars and lists show them: what is over first."""

AT_ONCE = 500
"""Tasks asked about in one go: some milliseconds of the loop's time."""

LOOK = 0.05
"""Seconds that one look at a batch may take before it leaves the rest to the next one."""

WINDOW = 10.0
"""Seconds over which a rate is measured."""

SHOWN_ERRORS = 3
"""Kinds of errors on a card."""

SHOWN_WORKERS = 20
"""Workers on a card."""

TAIL = 20
"""Lines of output on a card."""

LINE = 160
"""Characters of an error's line on a card."""

UNKNOWN = "no error is known"
"""What is said of a task that failed without a word."""


class BatchGauge(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is.

    Attributes
    ----------
    name : str
        The batch's.
    total : int
        Its tasks.
    counts : tuple of (State, int)
        How many are in which state, in the order of `ORDER`.
    rate : float or None
        Tasks that end in a second, lately, or if it is over, in all.
    elapsed, left : float or None
        Seconds since the first one started; seconds to the end at this rate.
    errors : tuple of (str, int)
        The most frequent errors and how many tasks failed with each.
    other_errors : int
        Tasks that failed with any other error.
    unserved : tuple of str
        Queues that have tasks of it, but no worker.
    """

    name: str
    total: int
    counts: tuple[tuple[State, int], ...]
    rate: float | None = None
    elapsed: float | None = None
    left: float | None = None
    errors: tuple[tuple[str, int], ...] = ()
    other_errors: int = 0
    unserved: tuple[str, ...] = ()

    @property
    def ended(self) -> int:
        """How many are over."""
        return sum(count for state, count in self.counts if state.final)

    @property
    def over(self) -> bool:
        """Whether all are."""
        return not any(count for state, count in self.counts if not state.final)


class HandleGauge(msgspec.Struct, frozen=True, kw_only=True):
    """Where one task stands. `task` is None if the queue does not know it.

    Attributes
    ----------
    id : str
        The task's.
    task : Task or None
        As the queue knows it.
    duration : float or None
        Seconds that the last attempt took, or takes so far.
    done, goal : float or None
        What the task said of its progress.
    note : str or None
        The last line that it said with it.
    output : str
        The end of what it printed.
    unserved : tuple of str
        Its queue, if it waits there and no worker serves it.
    """

    id: str
    task: Task | None
    duration: float | None = None
    done: float | None = None
    goal: float | None = None
    note: str | None = None
    output: str = ""
    unserved: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.task is None or self.task.state.final


class CellGauge(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on a cell's card.

    Attributes
    ----------
    task : HandleGauge
        Where its task stands.
    output : str
        What it printed.
    traceback : str
        Of the attempt that failed.
    notes : tuple of str
        What happened to other runs, and to variables.
    over : bool
        Whether there is nothing more to come.
    """

    task: HandleGauge
    output: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    over: bool = False


class WorkerGauge(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, and what its heartbeat tells: ``"running"``, ``"silent for 8 s"``, ``"dead"``."""

    info: WorkerInfo
    health: str


class WorkersGauge(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of a queue: those at work, then those that died or stopped last."""

    workers: tuple[WorkerGauge, ...]
    hidden: int = 0

    @property
    def over(self) -> bool:
        """Never: another worker may start."""
        return False


class ConfigGauge(msgspec.Struct, frozen=True, kw_only=True):
    """The components of a configuration: name, backend, and place without secrets."""

    project: str
    components: tuple[tuple[str, str, str], ...]

    @property
    def over(self) -> bool:
        """Always: it never changes."""
        return True


class ClientGauge(msgspec.Struct, frozen=True, kw_only=True):
    """A client at a glance."""

    config: ConfigGauge
    queues: tuple[tuple[str, tuple[tuple[State, int], ...]], ...]
    workers: WorkersGauge
    unserved: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Never: more tasks may come."""
        return False


class Tally:
    """Counts the tasks of a batch by state, asking again only about those that may change.

    Tasks start and end about in their order, so each look begins with the first ones that are
    open, goes on as long as it finds changes, and spends the rest of its time going round the
    others. A batch that is asked within one look is counted exactly; a larger one lags by the
    few looks that it takes to go round, and is exact when it is over.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    name : str
        The batch's.
    ids : sequence of str
        Its tasks.
    """

    def __init__(self, engine: Engine, name: str, ids: Sequence[str]) -> None:
        self._engine = engine
        self._name = name
        self._total = len(ids)
        self._open = list(ids)
        self._next = 0
        self._states: dict[str, State] = dict.fromkeys(ids, State.QUEUED)
        self._queues: dict[str, str] = {}
        self._counts = Counter({State.QUEUED: len(self._states)})
        self._failures: dict[str, str] = {}
        self._errors: Counter[str] = Counter()
        self._started: float | None = None
        self._finished: float | None = None
        self._samples: deque[tuple[float, int]] = deque()

    async def gauge(self, *, fully: bool = False) -> BatchGauge:
        """Look once.

        Parameters
        ----------
        fully : bool
            Ask about all of them, however long it takes.
        """
        await self._look(None if fully else LOOK)
        now = time.time()
        counts = tuple((state, self._counts[state]) for state in ORDER if self._counts[state])
        ended = sum(count for state, count in counts if state.final)
        live = sum(count for state, count in counts if not state.final)
        elapsed = None
        if self._started is not None:
            end = now if live or self._finished is None else self._finished
            elapsed = max(0.0, end - self._started)
        rate = self._rate(now, ended, live, elapsed)
        if live and elapsed is not None:
            elapsed = float(int(elapsed))  # a card need not change more often
        top = self._errors.most_common(SHOWN_ERRORS)
        return BatchGauge(
            name=self._name,
            total=self._total,
            counts=counts,
            rate=rate,
            elapsed=elapsed,
            left=float(round(live / rate)) if live and rate else None,
            errors=tuple(top),
            other_errors=self._errors.total() - sum(count for _, count in top),
            unserved=await self._engine.unserved(self._queues.values()) if live else (),
        )

    async def _look(self, seconds: float | None) -> None:
        """Ask about the open ones: the first ones, then round the rest."""
        started = time.monotonic()

        def late() -> bool:
            return seconds is not None and time.monotonic() - started > seconds

        asked = 0
        while asked < len(self._open):
            changed = await self._ask(self._open[asked : asked + AT_ONCE])
            asked += AT_ONCE
            if late() or (seconds is not None and not changed):
                break
        for _ in range(asked, len(self._open), AT_ONCE):
            if late():
                break
            begin = self._next if asked <= self._next < len(self._open) else asked
            await self._ask(self._open[begin : begin + AT_ONCE])
            self._next = begin + AT_ONCE
        # What succeeded never changes again; what failed may be requeued by hand.
        self._open = [task_id for task_id in self._open if self._states.get(task_id) in _MAY_CHANGE]

    async def _ask(self, ids: list[str]) -> bool:
        """Ask about these. Whether any of them changed."""
        changed = False
        tasks = await self._engine.stores.task_queue.get(ids)
        for task_id, task in zip(ids, tasks, strict=True):
            changed |= self._learn(task_id, task)
        await asyncio.sleep(0)  # others want the loop, too
        return changed

    def _learn(self, task_id: str, task: Task | None) -> bool:
        before = self._states.get(task_id)
        if task is None:  # purged
            if self._states.pop(task_id, None) is not None and before is not None:
                self._counts[before] -= 1
                self._queues.pop(task_id, None)
            return before is not None
        if task.state in (State.QUEUED, State.BLOCKED):
            self._queues[task_id] = task.queue
        else:
            self._queues.pop(task_id, None)
        if task.started_at is not None and (
            self._started is None or task.started_at < self._started
        ):
            self._started = task.started_at
        if task.finished_at is not None and task.state.final:
            self._finished = max(self._finished or 0.0, task.finished_at)
        if before is task.state:
            return False
        if before is not None:
            self._counts[before] -= 1
        self._states[task_id] = task.state
        self._counts[task.state] += 1
        failure = self._failures.pop(task_id, None)
        if failure is not None:
            self._errors[failure] -= 1
        if task.state is State.FAILED:
            self._failures[task_id] = kind = first_line(task.error or UNKNOWN)
            self._errors[kind] += 1
        return True

    def _rate(self, now: float, ended: int, live: int, elapsed: float | None) -> float | None:
        if not ended or not elapsed:
            return None
        self._samples.append((now, ended))
        while len(self._samples) > 2 and self._samples[0][0] < now - WINDOW:
            self._samples.popleft()
        if not live:
            return ended / elapsed
        (then, before) = self._samples[0]
        if now - then < 1.0:
            return ended / elapsed
        return max(0.0, (ended - before) / (now - then))


_MAY_CHANGE = frozenset(State) - {State.SUCCEEDED}


async def handle_gauge(engine: Engine, task_id: str, *, brief: bool = False) -> HandleGauge:
    """Where a task stands, what it said, and once it is over, the end of its output.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    task_id : str
        The task's.
    brief : bool
        Ask the queue alone: nothing of what the task said or printed.
    """
    (task,) = await engine.stores.task_queue.get([task_id])
    if task is None:
        return HandleGauge(id=task_id, task=None)
    duration = done = goal = note = None
    output = ""
    if task.started_at is not None:
        end = task.finished_at if task.state.final else time.time()
        # Whole seconds while it runs, as above.
        if end is not None:
            duration = end - task.started_at
            duration = duration if task.state.final else float(int(duration))
    if task.state is State.RUNNING:
        # When a heartbeat moves the lease, nothing that a card shows has changed.
        task.available_at = 0.0
        if not brief:
            done, goal, note = await _progress(engine, task)
    if task.state.final and not brief:
        (result,) = await engine.stores.result_storage.get([task.claim])
        output = "" if result is None else tail(result.output or "")
    waits = [task.queue] if task.state in (State.QUEUED, State.BLOCKED) else []
    return HandleGauge(
        id=task_id,
        task=task,
        duration=duration,
        done=done,
        goal=goal,
        note=note,
        output=output,
        unserved=await engine.unserved(waits),
    )


async def _progress(engine: Engine, task: Task) -> tuple[float | None, float | None, str | None]:
    """The last thing that the task said of its progress."""
    table = await engine.explorer.table(
        "events",
        columns=("message", "data"),
        since=task.started_at,
        where={"task_id": task.id, "type": str(EventType.PROGRESS), "attempt": task.attempt},
        order="-created_at",
        limit=1,
    )
    rows = table.to_pylist()
    if not rows:
        return None, None, None
    said = msgspec.json.decode(rows[0]["data"] or "{}", type=dict[str, float | None])
    return said.get("done"), said.get("total"), rows[0]["message"]


async def workers_gauge(engine: Engine) -> WorkersGauge:
    """The workers that a queue has heard of."""
    return _workers_gauge(seen_now(await engine.stores.task_queue.workers()))


def _workers_gauge(workers: Iterable[WorkerInfo]) -> WorkersGauge:
    now = time.time()
    found = [WorkerGauge(info=calm(info), health=health(info, now)) for info in workers]
    found.sort(key=lambda worker: (is_gone(worker.info), -worker.info.started_at))
    return WorkersGauge(
        workers=tuple(found[:SHOWN_WORKERS]), hidden=max(0, len(found) - SHOWN_WORKERS)
    )


def calm(info: WorkerInfo) -> WorkerInfo:
    """A worker without what changes with each beat and is not shown."""
    return msgspec.structs.replace(info, heartbeat_at=0.0)


def health(info: WorkerInfo, now: float) -> str:
    """What its heartbeat tells of a worker."""
    silent = now - info.heartbeat_at
    if is_gone(info) or silent < 3 * BEAT:
        return info.state
    return f"silent for {silent:.0f} s"


def config_gauge(config: OmniQConfig) -> ConfigGauge:
    """Where the four components are kept."""
    return ConfigGauge(
        project=config.settings.project_name,
        components=tuple(
            (component, config.backend(component).backend_type, place_of(config, component))
            for component in COMPONENTS
        ),
    )


def place_of(config: OmniQConfig, component: str) -> str:
    """Where a component is kept, in a line, without secrets."""
    shown = dict(config.backend(component).__rich_repr__())
    if "url" in shown:
        return str(shown["url"])
    try:
        location = config.location(component)
    except ConfigError as error:
        return f"not complete: {error}"
    if location is not None:
        return location
    options: Mapping[str, object] = shown.get("config", {})
    return ", ".join(f"{name}={value}" for name, value in options.items())


async def client_gauge(engine: Engine) -> ClientGauge:
    """The components, the queues and the workers of a client."""
    counts = counts_by_queue(await engine.stores.task_queue.counts())
    queues = tuple(
        (queue, tuple((state, states[state]) for state in ORDER if states.get(state)))
        for queue, states in counts.items()
    )
    waiting = [queue for queue, states in counts.items() if LIVE & states.keys()]
    workers = seen_now(await engine.stores.task_queue.workers())
    return ClientGauge(
        config=config_gauge(engine.config),
        queues=queues,
        workers=_workers_gauge(workers),
        unserved=unserved(waiting, workers),
    )


def first_line(text: str) -> str:
    """The first line of an error, cut to what a card has room for."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def tail(text: str) -> str:
    """The last lines of an output, cut to what a card has room for."""
    lines = text.rstrip().splitlines()[-TAIL:]
    return "\n".join(
        line if len(line) <= 4 * LINE else line[: 4 * LINE - 1] + "…" for line in lines
    )
