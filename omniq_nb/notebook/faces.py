"""How cards look: static HTML that needs nothing else, and plain text.

Everything that is not our own text is escaped here. Without its style a card is still readable,
and it holds no script.

Not here: what stands on them (`omniq_nb.notebook.gauges`), colours (`omniq_nb.notebook.theme`).
"""

import time
from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape

from omniq_nb.liveness import unserved_words
from omniq_nb.models.task import State
from omniq_nb.notebook.gauges import (
    BatchGauge,
    CellGauge,
    ClientGauge,
    ConfigGauge,
    HandleGauge,
    WorkerGauge,
    WorkersGauge,
    first_line,
)
from omniq_nb.notebook.theme import STYLE

_HEALTH = {"running": State.RUNNING, "silent": State.CANCELLED, "dead": State.FAILED}
"""The colour that goes with what a worker's heartbeat tells."""

BAR = 30
"""Characters of a bar in plain text."""

Gauge = BatchGauge | HandleGauge | CellGauge | WorkersGauge | ConfigGauge | ClientGauge

WORKERS_HEAD = ("kind", "queues", "at once", "state", "running", "succeeded", "failed", "host")
PARTS_HEAD = ("component", "backend", "place")


def html(gauge: Gauge | str, trouble: str | None = None) -> str:
    """A card as HTML.

    Parameters
    ----------
    gauge : one of the gauges, or str
        What stands on it; just a name if nothing is known.
    trouble : str, optional
        Why it may be out of date.
    """
    over = isinstance(gauge, str) or gauge.over
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    seen = "" if over else f'<p class="quiet">last change {now}</p>'
    warning = f'<p class="hint">{escape(trouble)}</p>' if trouble else ""
    inside = _top(gauge, "") if isinstance(gauge, str) else body(gauge)
    return f'{STYLE}<div class="omniq">{inside}{warning}{seen}</div>'


@singledispatch
def body(gauge: Gauge) -> str:
    """The inside of a card as HTML."""
    raise NotImplementedError(type(gauge))


@singledispatch
def text(gauge: Gauge) -> str:
    """A card as plain text, without colours."""
    raise NotImplementedError(type(gauge))


# -------------------------------------------------------------------- batches


@body.register
def _(gauge: BatchGauge) -> str:
    return "".join(
        [
            _top(gauge.name, percent(gauge), *_pace(gauge)),
            _bar(gauge.name, _summary(gauge), gauge.counts, gauge.total, gauge.ended),
            _states(gauge.counts),
            _lines(_error_lines(gauge)),
            _hint(gauge.unserved),
        ]
    )


@text.register
def _(gauge: BatchGauge) -> str:
    lines = [
        f"{gauge.name}  {_drawn(gauge.ended, gauge.total)}  {percent(gauge)}",
        _summary(gauge),
        ", ".join(_pace(gauge)),
        *_error_lines(gauge),
        _hint_text(gauge.unserved),
    ]
    return "\n".join(line for line in lines if line)


def percent(gauge: BatchGauge) -> str:
    """How much of it is over, rounded down: 100 % is all of it."""
    return f"{100 * gauge.ended // gauge.total if gauge.total else 100} %"


def _summary(gauge: BatchGauge) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in gauge.counts)
    return f"{gauge.ended:,} of {tasks(gauge.total)}" + (f": {counts}" if counts else "")


def _pace(gauge: BatchGauge) -> list[str]:
    """The rate, the time left and the time so far."""
    parts = []
    if gauge.rate is not None and gauge.ended:
        parts.append(f"{rate(gauge.rate)} tasks/s")
    if gauge.left is not None:
        parts.append(f"about {_so_far(gauge.left)} left")
    if gauge.elapsed is not None:
        parts.append(span(gauge.elapsed) if gauge.over else f"{_so_far(gauge.elapsed)} so far")
    return parts


def _error_lines(gauge: BatchGauge) -> list[str]:
    lines = [f"{count:,} failed: {error}" for error, count in gauge.errors if count > 0]
    if gauge.other_errors > 0:
        lines.append(f"{gauge.other_errors:,} failed otherwise")
    return lines


# -------------------------------------------------------------------- one task


@body.register
def _(gauge: HandleGauge) -> str:
    task = gauge.task
    if task is None:
        return _top(gauge.id, "unknown") + "<p>No task of this id is known, or it was purged.</p>"
    bar = ""
    if gauge.done is not None and gauge.goal:
        share = min(max(gauge.done / gauge.goal, 0.0), 1.0)
        counts = [(State.RUNNING, round(1000 * share))]
        bar = _bar(task.name, _progress(gauge), counts, 1000, round(1000 * share))
    return "".join(
        [
            _top(task.name, _badge(task.state), *_facts(gauge)),
            bar,
            _lines([line for line in (_progress(gauge), _error(gauge)) if line]),
            f'<p class="quiet">task <code>{escape(task.id)}</code></p>',
            f"<pre>{escape(gauge.output)}</pre>" if gauge.output else "",
            _hint(gauge.unserved),
        ]
    )


@text.register
def _(gauge: HandleGauge) -> str:
    task = gauge.task
    if task is None:
        return f"task {gauge.id}: no task of this id is known, or it was purged"
    lines = [
        f"{task.name}  {task.state}  {', '.join(_facts(gauge))}".rstrip(),
        f"task {task.id}",
        _progress(gauge),
        _error(gauge),
        gauge.output,
        _hint_text(gauge.unserved),
    ]
    return "\n".join(line for line in lines if line)


def _facts(gauge: HandleGauge) -> list[str]:
    task = gauge.task
    facts = []
    if task is not None and task.attempt:
        facts.append(f"attempt {task.attempt}")
        if gauge.duration is not None:
            took = gauge.duration
            facts.append(span(took) if gauge.over else f"{_so_far(took)} so far")
        if task.worker is not None:
            facts.append(f"worker {task.worker}")
    return facts


def _progress(gauge: HandleGauge) -> str:
    if gauge.done is None:
        return gauge.note or ""
    done = f"{gauge.done:,g}" + (f" of {gauge.goal:,g}" if gauge.goal is not None else "")
    return f"{done}: {gauge.note}" if gauge.note else done


def _error(gauge: HandleGauge) -> str:
    return first_line(gauge.task.error) if gauge.task is not None and gauge.task.error else ""


# -------------------------------------------------------------------- cells

# The newest lines stay in view.
_LOG = (
    '<pre role="log" aria-label="output" tabindex="0" '
    'style="display:flex;flex-direction:column-reverse"><span>{}</span></pre>'
)


@body.register
def _(gauge: CellGauge) -> str:
    return "".join(
        [
            body(gauge.task),
            _LOG.format(escape(gauge.output)) if gauge.output else "",
            f"<pre>{escape(gauge.traceback)}</pre>" if gauge.traceback else "",
            *(f"<p>{escape(note)}</p>" for note in gauge.notes),
        ]
    )


@text.register
def _(gauge: CellGauge) -> str:
    parts = [text(gauge.task), gauge.output, gauge.traceback, *gauge.notes]
    return "\n".join(part.rstrip("\n") for part in parts if part)


# -------------------------------------------------------------------- workers


@body.register
def _(gauge: WorkersGauge) -> str:
    at_work = sum(worker.health == "running" for worker in gauge.workers)
    return _top("Workers", f"{at_work} running") + _workers(gauge)


@text.register
def _(gauge: WorkersGauge) -> str:
    if not gauge.workers:
        return "no worker was ever started: oq.workers.start(2)"
    table = _columns(WORKERS_HEAD, [_worker(worker) for worker in gauge.workers])
    return table + (f"\nand {gauge.hidden:,} more" if gauge.hidden else "")


def _workers(gauge: WorkersGauge) -> str:
    if not gauge.workers:
        return "<p>No worker was ever started: <code>oq.workers.start(2)</code></p>"
    rows = [
        [
            _badge(_HEALTH.get(cell.partition(" ")[0], State.QUEUED), cell)
            if head == "state"
            else escape(cell)
            for head, cell in zip(WORKERS_HEAD, _worker(worker), strict=True)
        ]
        for worker in gauge.workers
    ]
    more = f'<p class="quiet">and {gauge.hidden:,} more</p>' if gauge.hidden else ""
    numbers = ("at once", "running", "succeeded", "failed")
    return _table(WORKERS_HEAD, rows, numbers) + more


def _worker(worker: WorkerGauge) -> tuple[str, ...]:
    info = worker.info
    return (
        info.kind,
        ", ".join(info.queues),
        f"{info.concurrency:,}",
        worker.health,
        f"{info.running:,}",
        f"{info.succeeded:,}",
        f"{info.failed:,}",
        f"{info.host}, process {info.pid}" if info.host else f"process {info.pid}",
    )


# -------------------------------------------------------------------- clients


@body.register
def _(gauge: ConfigGauge) -> str:
    rows = [[escape(cell) for cell in _spaced(row)] for row in gauge.components]
    return _top(gauge.project, "configuration") + _table(PARTS_HEAD, rows)


@text.register
def _(gauge: ConfigGauge) -> str:
    rows = [_spaced(row) for row in gauge.components]
    return f"{gauge.project}\n{_columns(PARTS_HEAD, rows)}"


@body.register
def _(gauge: ClientGauge) -> str:
    rows = [[escape(cell) for cell in _spaced(row)] for row in gauge.config.components]
    queues = [[escape(queue), _states(counts)] for queue, counts in gauge.queues]
    return "".join(
        [
            _top(gauge.config.project, "omniq_nb"),
            _table(PARTS_HEAD, rows),
            _table(("queue", "tasks"), queues) if queues else "<p>No tasks yet.</p>",
            _workers(gauge.workers),
            _hint(gauge.unserved) if gauge.workers.workers else "",
        ]
    )


@text.register
def _(gauge: ClientGauge) -> str:
    queues = [
        (queue, ", ".join(f"{count:,} {state}" for state, count in counts))
        for queue, counts in gauge.queues
    ]
    parts = [
        text(gauge.config),
        _columns(("queue", "tasks"), queues) if queues else "no tasks yet",
        text(gauge.workers),
        _hint_text(gauge.unserved) if gauge.workers.workers else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _spaced(row: tuple[str, str, str]) -> tuple[str, str, str]:
    component, backend, place = row
    return component.replace("_", " "), backend, place


# -------------------------------------------------------------------- pieces of HTML


def _top(title: str, state: str, *facts: str) -> str:
    """The first line. `state` may be one of our badges; the title and the facts are escaped."""
    side = f'<span class="side quiet">{escape(" · ".join(facts))}</span>' if facts else ""
    return f'<div class="top"><strong>{escape(title)}</strong> <span>{state}</span> {side}</div>'


def _badge(state: State, word: str | None = None) -> str:
    dot = f'<span class="dot {state}"></span>'
    return f'<span class="badge">{dot}{escape(word or str(state))}</span>'


def _bar(label: str, said: str, counts: Iterable[tuple[State, int]], total: int, done: int) -> str:
    pieces = "".join(
        f'<i class="{state}" style="width:{100 * count / total:.2f}%"></i>'
        for state, count in counts
        if count and state not in (State.QUEUED, State.BLOCKED)
    )
    return (
        f'<div class="bar" role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" '
        f'aria-valuemax="{total}" aria-valuenow="{done}" aria-valuetext="{escape(said)}">'
        f"{pieces}</div>"
    )


def _states(counts: Iterable[tuple[State, int]]) -> str:
    items = "".join(
        f'<li><span class="dot {state}"></span>{count:,} {state}</li>' for state, count in counts
    )
    return f"<ul>{items}</ul>"


def _lines(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f'<ul class="lines">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """A table of cells that are HTML already."""
    kinds = [' class="number"' if name in numbers else "" for name in head]
    top = "".join(
        f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"
    # A narrow page scrolls it, also by keyboard.
    return f'<div class="wide" role="group" aria-label="{head[0]}" tabindex="0">{table}</div>'


def _hint(unserved: Sequence[str]) -> str:
    said = _hint_text(unserved)
    if not said:
        return ""
    words, _, call = said.partition(": ")
    return f'<p class="hint">{escape(words)}: <code>{escape(call)}</code></p>'


# -------------------------------------------------------------------- pieces of text


def _hint_text(unserved: Sequence[str]) -> str:
    return unserved_words(unserved) if unserved else ""


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _drawn(done: int, total: int) -> str:
    full = BAR * done // total if total else BAR
    return "█" * full + "░" * (BAR - full)


def tasks(number: int) -> str:
    """A number of tasks for people."""
    return f"{number:,} task" + ("" if number == 1 else "s")


def rate(rate: float) -> str:
    """Tasks in a second for people."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _so_far(seconds: float) -> str:
    """A span that is known to the second only."""
    return span(seconds) if seconds >= 1 else "less than 1 s"


def span(seconds: float) -> str:
    """A span of time for people.

    Examples
    --------
    >>> [span(seconds) for seconds in (0.0042, 0.25, 12.3, 90, 7320)]
    ['4 ms', '0.25 s', '12 s', '1 min 30 s', '2 h 2 min']
    """
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
