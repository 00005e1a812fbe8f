"""What goes on, as HTML: a table of the queues, and charts of a bounded number of marks.

Marks are SVG that is stretched to the room there is; words stand beside it as HTML, so that they
keep their size. Colours and letters follow the page.

Not here: what there is to draw (`omniq_nb.notebook.panel.activity`).
"""

from collections.abc import Sequence
from html import escape

import msgspec

from omniq_nb.models.task import State
from omniq_nb.notebook.faces import rate as rate_of
from omniq_nb.notebook.faces import span as words
from omniq_nb.notebook.gauges import ORDER
from omniq_nb.notebook.theme import COLOURS

MEDIAN, HIGH = COLOURS[State.RUNNING], COLOURS[State.CANCELLED]
"""The colours of the waiting's median and its 95th percentile."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One task in the timeline: seconds since 1970, and one of its worker's lanes."""

    worker: str
    lane: int
    begin: float
    end: float
    state: State


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest tasks tell.

    Attributes
    ----------
    span : float
        Seconds that are looked back from `now`.
    rates : tuple of (State, tuple of float)
        Tasks that ended so in a second, in each part of that time.
    waits : tuple of (float, float) or None
        Seconds from submitting to starting in each part: median and 95th percentile.
    bars : tuple of Bar
        The timeline.
    now : float
        Seconds since 1970.
    """

    span: float
    rates: tuple[tuple[State, tuple[float, ...]], ...]
    waits: tuple[tuple[float, float] | None, ...]
    bars: tuple[Bar, ...]
    now: float


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on.

    Attributes
    ----------
    queues : tuple of (str, tuple of (State, int))
        The tasks of each queue by state.
    recent : Recent or None
        What the newest tasks tell, if there are any.
    looked : bool
        Whether these were looked at already.
    """

    queues: tuple[tuple[str, tuple[tuple[State, int], ...]], ...]
    recent: Recent | None = None
    looked: bool = True


def drawn(activity: Activity) -> str:
    """All of it."""
    parts = [_queues(activity)]
    recent = activity.recent
    if recent is None and activity.looked:
        parts.append('<p class="omniq-quiet">No task has run in the last minutes.</p>')
    elif recent is not None:
        parts += [
            '<div class="omniq-charts">',
            _throughput(recent),
            _waits(recent),
            "</div>",
            _timeline(recent),
        ]
    return "".join(parts)


def _queues(activity: Activity) -> str:
    if not activity.queues:
        return '<p class="omniq-quiet">No tasks yet.</p>'
    present = [
        state
        for state in ORDER[::-1]
        if any(dict(counts).get(state) for _, counts in activity.queues)
    ]
    head = "".join(
        f'<th scope="col" class="omniq-number">{dot(COLOURS[state])}{state}</th>'
        for state in present
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(queue)}</th>'
        + "".join(
            f'<td class="omniq-number">{dict(counts).get(state, 0):,}</td>' for state in present
        )
        + "</tr>"
        for queue, counts in activity.queues
    )
    return (
        '<div class="omniq-wide" role="group" aria-label="Queues" tabindex="0"><table><thead><tr>'
        f'<th scope="col">queue</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _throughput(recent: Recent) -> str:
    bins = len(recent.waits)
    totals = [sum(rates[at] for _, rates in recent.rates) for at in range(bins)]
    top = max(totals, default=0.0)
    marks = []
    below = [0.0] * bins
    for state, rates in recent.rates:
        for at, rate in enumerate(rates):
            if rate:
                y, height = 1 - (below[at] + rate) / top, rate / top
                marks.append(_rect(at + 0.08, y, 0.84, height, COLOURS[state]))
                below[at] += rate
    said = f"at most {rate_of(top)} tasks per second"
    legend = [(str(state), COLOURS[state]) for state, _ in recent.rates]
    return _chart("Throughput", said, f"0 0 {bins} 1", marks, 110, recent.span, legend)


def _waits(recent: Recent) -> str:
    known = [(at, wait) for at, wait in enumerate(recent.waits) if wait is not None]
    top = max((high for _, (_, high) in known), default=0.0) or 1.0
    marks = []
    for which, colour in ((1, HIGH), (0, MEDIAN)):
        # Parts of the time in which nothing started have no point; a single one is a short line.
        points = " ".join(
            f"{at + x:g},{1 - 0.97 * wait[which] / top:.4f}"
            for at, wait in known
            for x in ((0.1, 0.9) if len(known) == 1 else (0.5,))
        )
        marks.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
        )
    said = f"at most {words(top)}" if known else "nothing started"
    legend = [("median", MEDIAN), ("95 % are faster", HIGH)]
    view = f"0 0 {len(recent.waits)} 1"
    return _chart("Waited from submitting to start", said, view, marks, 110, recent.span, legend)


def _timeline(recent: Recent) -> str:
    if not recent.bars:
        return ""
    begin = max(recent.now - recent.span, min(bar.begin for bar in recent.bars))
    shown = max(recent.now - begin, 1e-3)
    rows = []
    for worker in dict.fromkeys(bar.worker for bar in recent.bars):
        bars = [bar for bar in recent.bars if bar.worker == worker]
        lanes = 1 + max(bar.lane for bar in bars)
        marks = [
            _rect(
                1000 * max(0.0, bar.begin - begin) / shown,
                bar.lane + 0.08,
                # A task of a moment is seen, too.
                max(1.5, 1000 * (bar.end - max(begin, bar.begin)) / shown),
                0.84,
                COLOURS[bar.state],
            )
            for bar in bars
        ]
        said = f"{len(bars)} tasks"
        rows.append(
            f'<div class="omniq-quiet">{escape(worker)}</div>'
            + _svg(f"{worker}: {said}", f"0 0 1000 {lanes}", marks, 9 * lanes + 3)
        )
    states = dict.fromkeys(bar.state for bar in recent.bars)
    legend = [(str(state), COLOURS[state]) for state in states]
    return (
        '<div class="omniq-chart"><div class="omniq-title">'
        f"Who ran what: the newest {len(recent.bars):,} tasks</div>"
        f"{''.join(rows)}{_axis(shown)}{_legend(legend)}</div>"
    )


# -------------------------------------------------------------------- pieces


def _chart(
    title: str,
    said: str,
    view: str,
    marks: Sequence[str],
    height: int,
    seconds: float,
    legend: Sequence[tuple[str, str]],
) -> str:
    return (
        '<div class="omniq-chart"><div class="omniq-title">'
        f'{title} <span class="omniq-quiet">{said}</span></div>'
        f"{_svg(f'{title}: {said}', view, marks, height)}{_axis(seconds)}{_legend(legend)}</div>"
    )


def _svg(label: str, view: str, marks: Sequence[str], height: int) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="{view}" '
        f'preserveAspectRatio="none" style="height:{height}px">{"".join(marks)}</svg>'
    )


def _axis(seconds: float) -> str:
    ago = f"{seconds / 60:g} min" if seconds % 60 == 0 else words(seconds)
    return f'<div class="omniq-axis omniq-quiet"><span>{ago} ago</span><span>now</span></div>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<span>{dot(colour)}{word}</span>" for word, colour in entries)
    return f'<div class="omniq-legend">{items}</div>'


def dot(colour: str) -> str:
    """A spot of a colour, for the word that follows."""
    return f'<span class="omniq-dot" style="background:{colour}"></span>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" fill="{colour}"/>'
    )
