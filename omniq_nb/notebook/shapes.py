"""What plots draw from: tasks counted, laid out or sampled, so that a few hundred rows are left.

Not here: how it is drawn (`omniq_nb.notebook.charts`).
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from omniq_nb.config.sources import nearest
from omniq_nb.errors import ConfigError
from omniq_nb.explore.views import BATCH, EVENTS, RESULTS, SCHEDULES, TASKS

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]

BINS = 40
"""Bars of a histogram and of the throughput."""

MOST_BARS = 800
"""Tasks that a timeline, or the points of a sweep, show one by one."""

MOST_WORKERS = 12
"""Workers that a timeline shows."""

MOST_LINES = 400
"""Tasks that parallel coordinates show."""

MOST_CELLS = 30
"""Columns and rows of a heat map; more numbers than that are put into so many ranges."""

_DOCUMENTED = frozenset(
    name for view in (TASKS, RESULTS, EVENTS, SCHEDULES, BATCH) for name in view.names
)
"""Columns that are no parameters of a sweep."""


class Histogram(NamedTuple):
    """How many tasks took how long: rows of `begin`, `end`, `state` and `tasks`."""

    rows: pd.DataFrame
    tasks: int
    median: float | None
    log: bool


class Flow(NamedTuple):
    """How many tasks ended when: as a histogram, with `rate`, in seconds since `origin`."""

    rows: pd.DataFrame
    tasks: int
    origin: float


class Lanes(NamedTuple):
    """Who ran what, when: rows of `worker`, `lane`, `begin`, `end`, and what else is known."""

    rows: pd.DataFrame
    tasks: int
    workers: int
    lanes: int
    origin: float


class Axis(NamedTuple):
    """A parameter's values as they are drawn: numbers or texts, and these in their order."""

    name: str
    places: "pd.Series[Any]"
    order: list[Any]
    numeric: bool


class Sweep(NamedTuple):
    """The tasks of a sweep that gave a number, the numbers, and the parameters to show."""

    tasks: pd.DataFrame
    values: "pd.Series[float]"
    parameters: list[str]


def known(key: str, word: object, names: Iterable[object]) -> str:
    """The word, if it is one of the names.

    Raises
    ------
    ConfigError
        It is none; the error says which one is nearest.
    """
    allowed = [str(name) for name in names]
    if word not in allowed:
        raise ConfigError(key, word, ", ".join(allowed) or "nothing", nearest(word, allowed))
    return str(word)


def sample(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Evenly chosen rows, if there are too many."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).astype(int)]


# -------------------------------------------------------------------- counted


def histogram(frame: pd.DataFrame) -> Histogram:
    """Count durations."""
    took = frame[frame["duration"].notna()]
    seconds = took["duration"].astype(float).to_numpy()
    if not len(seconds):
        return Histogram(_counted(took, seconds, np.array([0.0, 1.0])), 0, None, log=False)
    median, low, high = float(np.median(seconds)), float(seconds.min()), float(seconds.max())
    # Durations over many orders of magnitude are only seen on a logarithmic scale.
    log = low > 0 and high > 100 * median
    edges = _edges(low, high, len(seconds), log=log)
    return Histogram(_counted(took, seconds, edges), len(took), median, log)


def flow(frame: pd.DataFrame) -> Flow:
    """Count ends over time."""
    ended = frame[frame["finished_at"].notna()]
    ends = _seconds(ended["finished_at"])
    begins = _seconds(ended["started_at"]) if "started_at" in ended else ends
    origin = _first(np.concatenate([begins, ends]))
    ends = ends - origin
    edges = _edges(0.0, float(ends.max(initial=0.0)), len(ends))
    rows = _counted(ended, ends, edges)
    rows["rate"] = rows["tasks"] / (rows["end"] - rows["begin"])
    return Flow(rows, len(ended), origin)


def _edges(low: float, high: float, count: int, *, log: bool = False) -> Array:
    """The ends of equal ranges that hold so many numbers."""
    if high <= low:
        high = low + (abs(low) or 1.0) * 1e-3
    bins = min(BINS, max(1, count))
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def _counted(frame: pd.DataFrame, numbers: Array, edges: Array) -> pd.DataFrame:
    """How many numbers fall between which edges, by the state of their task."""
    place = np.searchsorted(edges, numbers, side="right") - 1
    place = np.clip(place, 0, len(edges) - 2)
    state = frame["state"].astype(str).to_numpy() if "state" in frame else "tasks"
    counted = (
        pd.DataFrame({"place": place, "state": state})
        .groupby(["place", "state"])
        .size()
        .reset_index(name="tasks")
    )
    where = counted["place"].to_numpy(dtype=int)
    return counted.assign(begin=edges[where], end=edges[where + 1]).drop(columns="place")


# -------------------------------------------------------------------- laid out


def lanes(frame: pd.DataFrame) -> Lanes:
    """Lay out what the busiest workers ran, so that bars of one lane never overlap."""
    ran = frame[frame["started_at"].notna() & frame["worker"].notna()].copy()
    begins, ends = _seconds(ran["started_at"]), _seconds(ran["finished_at"])
    origin = _first(begins)
    ran["begin"] = begins - origin
    ends = ends - origin
    # What has not finished reaches to the end.
    latest = float(np.nanmax(np.concatenate([[0.0], ran["begin"], ends])))
    ran["end"] = np.where(np.isnan(ends), latest, ends)
    workers = ran["worker"].value_counts()
    kept = ran[ran["worker"].isin(workers.index[:MOST_WORKERS])]
    kept = kept.sort_values("begin", kind="stable")
    kept["lane"] = _free_lanes(kept)
    count = int((kept.groupby("worker")["lane"].max() + 1).sum())
    columns = ["worker", "lane", "begin", "end"]
    columns += [column for column in ("state", "task_id", "error") if column in kept]
    rows = _plain(sample(kept, MOST_BARS)[columns])
    return Lanes(rows, len(ran), len(workers), count, origin)


def _free_lanes(ran: pd.DataFrame) -> list[int]:
    """For tasks in the order of their start: the first lane of their worker that is free then."""
    free: dict[str, list[int]] = {}
    busy: dict[str, list[tuple[float, int]]] = {}
    found = []
    for worker, begin, end in zip(ran["worker"], ran["begin"], ran["end"], strict=True):
        running, idle = busy.setdefault(worker, []), free.setdefault(worker, [])
        while running and running[0][0] <= begin + 1e-6:
            heapq.heappush(idle, heapq.heappop(running)[1])
        lane = heapq.heappop(idle) if idle else len(running)
        heapq.heappush(running, (end, lane))
        found.append(lane)
    return found


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of numbers and texts: what cannot be JSON is written out."""
    numbers = frame.select_dtypes("number").columns
    plain = frame.reset_index(drop=True)
    for column in plain.columns.difference(numbers):
        plain[column] = [None if pd.isna(cell) else str(cell) for cell in plain[column]]
    return plain


def _seconds(moments: "pd.Series[Any]") -> Array:
    """Moments as seconds since 1970; NaN where there is none."""
    if pd.api.types.is_numeric_dtype(moments):
        return moments.astype(float).to_numpy()
    times = pd.to_datetime(moments, utc=True).dt.tz_localize(None)
    return ((times - pd.Timestamp(0)) / pd.Timedelta(seconds=1)).to_numpy(dtype=float)


def _first(moments: Array) -> float:
    return float(np.nanmin(moments)) if len(moments) else 0.0


# -------------------------------------------------------------------- swept


def swept(frame: pd.DataFrame, value: str, x: str | None, y: str | None) -> Sweep:
    """Find what a sweep gave, and the parameters to show it by.

    Raises
    ------
    ConfigError
        No such column or parameter, no number, or nothing that varies.
    """
    frame = frame.reset_index(drop=True)
    numbers = _numbers(frame, value)
    values = numbers[numbers.notna()]
    tasks = frame.loc[values.index]
    own = _DOCUMENTED | {value}
    parameters = [str(name) for name in frame.columns if name not in own]
    others = [str(name) for name in frame.columns if name in own]
    chosen = [
        known(key, axis, [*parameters, *others])
        for key, axis in (("x", x), ("y", y))
        if axis is not None
    ]
    if len(chosen) < 2:
        varied = [name for name in parameters if tasks[name].astype(str).nunique() > 1]
        chosen += [name for name in varied if name not in chosen]
        # Who names one axis wants a heat map.
        chosen = chosen if x is None and y is None else chosen[:2]
    if not chosen:
        raise ConfigError("data", "no parameter that varies", "the tasks of a sweep")
    return Sweep(tasks, values, chosen)


def _numbers(frame: pd.DataFrame, value: str) -> "pd.Series[float]":
    """The numbers that a sweep gave; NaN where there is none, or none that can be drawn."""
    column = frame["value"] if "value" in frame else pd.Series(None, frame.index, dtype=object)
    maps = [cell if isinstance(cell, Mapping) else {} for cell in column]
    inner = sorted({str(name) for each in maps for name in each})
    if value in frame:
        column = frame[value]
    else:
        known("value", value, [*inner, *frame.columns])
        column = pd.Series([each.get(value) for each in maps], frame.index, dtype=object)
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    if not numbers.notna().any():
        names = f", or one of the names in values: {', '.join(inner)}" if inner else ""
        raise ConfigError("value", value, f"a column that holds numbers{names}")
    return numbers


def axis(tasks: pd.DataFrame, name: str) -> Axis:
    """How to draw a parameter."""
    column = tasks[name]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.nunique() > MOST_CELLS:
            column = pd.cut(column, MOST_CELLS).map(lambda cell: float(f"{cell.mid:.3g}"))
        column = column.astype(float)
        return Axis(name, column, sorted(column.dropna().unique().tolist()), numeric=True)
    column = column.astype(str)
    return Axis(name, column, sorted(column.unique().tolist()), numeric=False)


def cells(across: Axis, up: Axis, values: "pd.Series[float]") -> pd.DataFrame:
    """The mean of the values by two parameters: rows of `x`, `y`, `mean` and `tasks`."""
    return (
        pd.DataFrame({"x": across.places, "y": up.places, "value": values})
        .groupby(["x", "y"], sort=False)["value"]
        .agg(mean="mean", tasks="size")
        .reset_index()
    )


def coordinates(
    axes: Sequence[Axis], values: "pd.Series[float]"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Parallel axes from 0 to 1: where each task's line meets them, and what stands beside them.

    Returns
    -------
    lines : DataFrame
        Rows of `name`, `place`, `task` and `value`.
    marks : DataFrame
        Rows of `name`, `place` and `word`.
    """
    lines, marks = [], []
    for name, column, order, numeric in axes:
        if numeric:
            low, width = order[0], (order[-1] - order[0]) or 1.0
            at = {cell: (cell - low) / width for cell in order}
        else:
            at = {cell: number / max(1, len(order) - 1) for number, cell in enumerate(order)}
        shown = order if len(order) <= 6 else [order[0], order[-1]]
        words = [f"{cell:.4g}" if numeric else str(cell) for cell in shown]
        marks.append(
            pd.DataFrame({"name": name, "place": [at[cell] for cell in shown], "word": words})
        )
        tasks = range(len(column))
        lines.append(
            pd.DataFrame({"name": name, "place": column.map(at), "task": tasks, "value": values})
        )
    return pd.concat(lines, ignore_index=True), pd.concat(marks, ignore_index=True)
