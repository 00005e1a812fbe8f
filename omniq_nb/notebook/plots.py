"""Plots of what tasks took and gave: each is one call on a batch or on a data frame.

They are Altair charts of a few hundred marks, however many tasks there are: what is drawn is
counted first, or sampled with a note that says so. JupyterLab draws them itself, following its
light or dark theme; a picture goes with them for front ends that cannot, for nbconvert and for
GitHub. Nothing is fetched from anywhere. Why Altair, and what the plots show: docs/plots.md.

Not here: the counting (`omniq_nb.notebook.shapes`) and the drawing (`omniq_nb.notebook.charts`).
"""

from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from omniq_nb.config.sources import nearest
from omniq_nb.errors import ConfigError
from omniq_nb.notebook import charts, shapes
from omniq_nb.notebook.faces import span
from omniq_nb.notebook.faces import tasks as tasks_of
from omniq_nb.sync import Batch

if TYPE_CHECKING:
    from omniq_nb.notebook.charts import Chart

Data: TypeAlias = Batch[Any] | pd.DataFrame

VEGALITE = "application/vnd.vegalite.v5+json"
"""What JupyterLab 4 and Notebook 7 draw by themselves."""


class Plot:
    """A plot to show.

    Attributes
    ----------
    chart : altair.Chart
        To change or to save: ``plot.chart.properties(width=800).save("plot.svg")``.
    title : str
        What it shows, in words.
    """

    def __init__(self, chart: "Chart", title: str) -> None:
        self.chart = charts.titled(chart, title)
        self.title = title

    def __repr__(self) -> str:
        return f"<Plot: {self.title}>"

    def spec(self) -> dict[str, Any]:
        """The chart in Vega-Lite, as front ends get it."""
        return charts.spec_of(self.chart)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = self.spec()
        picture, width, height = charts.picture_of(spec)
        # PNG, not SVG: without one the page would make its own, for which Voila lacks the means.
        png = b64encode(picture).decode()
        data = {VEGALITE: spec, "text/plain": repr(self), "image/png": png}
        return data, {"image/png": {"width": width, "height": height}}


def durations(data: Data) -> Plot:
    """How long tasks took: a histogram, by state.

    Parameters
    ----------
    data : Batch or DataFrame
        A frame needs the column `duration`; with `state`, bars are coloured by it.

    Raises
    ------
    ConfigError
        A column is missing.
    """
    frame, name = _frame(data, "duration")
    shape = shapes.histogram(frame)
    title = f"Duration of {tasks_of(shape.tasks)}{_of(name)}"
    if shape.median is not None:
        title += f": median {span(shape.median)}"
    return Plot(charts.histogram_chart(shape), title)


def throughput(data: Data) -> Plot:
    """How many tasks ended in a second, over time, by state.

    Parameters
    ----------
    data : Batch or DataFrame
        A frame needs the column `finished_at`; with `state`, bars are coloured by it.

    Raises
    ------
    ConfigError
        A column is missing.
    """
    frame, name = _frame(data, "finished_at")
    shape = shapes.flow(frame)
    return Plot(charts.flow_chart(shape), f"Throughput of {tasks_of(shape.tasks)}{_of(name)}")


def timeline(data: Data) -> Plot:
    """Which worker ran what, when: a bar for each task.

    Parameters
    ----------
    data : Batch or DataFrame
        A frame needs the columns `worker`, `started_at` and `finished_at`. A task that has not
        finished reaches to the end.

    Raises
    ------
    ConfigError
        A column is missing.
    """
    frame, name = _frame(data, "worker", "started_at", "finished_at")
    shape = shapes.lanes(frame)
    title = f"Timeline of {tasks_of(shape.tasks)}{_of(name)}"
    if len(shape.rows) < shape.tasks:
        title += f": {len(shape.rows):,} of them shown"
    if shape.workers > shapes.MOST_WORKERS:
        title += f", the busiest {shapes.MOST_WORKERS} of {shape.workers:,} workers"
    return Plot(charts.lanes_chart(shape), title)


def sweep(data: Data, value: str = "value", x: str | None = None, y: str | None = None) -> Plot:
    """What a sweep gave, by its parameters.

    One parameter gives points, two a heat map of the mean, more of them parallel coordinates,
    a line for each task. `x` and `y` choose the parameters of a heat map. Tasks that gave no
    finite number are left out.

    Parameters
    ----------
    data : Batch or DataFrame
        A frame's parameters are its columns that are none of docs/tables.md.
    value : str
        A column with numbers, or a name in values that are mappings: ``"accuracy"``.
    x, y : str, optional
        Parameters.

    Raises
    ------
    ConfigError
        No such column or parameter, or nothing in it is a number.
    """
    frame, name = _frame(data)
    tasks, values, parameters = shapes.swept(frame, value, x, y)
    title = f"{value} by {', '.join(parameters)}{_of(name)}"
    if len(parameters) == 2:
        across, up = (shapes.axis(tasks, parameter) for parameter in parameters)
        cells = shapes.cells(across, up, values)
        return Plot(charts.heat_map(cells, across, up, value), title)
    most = shapes.MOST_BARS if len(parameters) == 1 else shapes.MOST_LINES
    shown = shapes.sample(tasks, most)
    if len(shown) < len(tasks):
        title += f": {len(shown):,} of {tasks_of(len(tasks))} shown"
    values = values.loc[shown.index]
    axes = [shapes.axis(shown, parameter) for parameter in parameters]
    if len(axes) == 1:
        rows = pd.DataFrame({"x": axes[0].places, "value": values})
        return Plot(charts.points_chart(rows, axes[0], value), title)
    axes.append(shapes.axis(values.to_frame(value), value))
    lines, marks = shapes.coordinates(axes, values)
    return Plot(charts.parallel_chart(lines, marks, [*parameters, value], value), title)


KINDS: dict[str, Callable[..., Plot]] = {
    "durations": durations,
    "timeline": timeline,
    "throughput": throughput,
    "sweep": sweep,
}
"""The plots by name."""


def plot(data: Data, kind: str, **columns: str) -> Plot:
    """One of the plots, by its name.

    Parameters
    ----------
    data : Batch or DataFrame
        What is plotted.
    kind : {"durations", "timeline", "throughput", "sweep"}
        Which plot.
    **columns : str
        For ``"sweep"``: `value`, `x` and `y`.

    Raises
    ------
    ConfigError
        No such plot, column or parameter.
    """
    shapes.known("kind", kind, KINDS)
    allowed = ("value", "x", "y") if kind == "sweep" else ()
    for name, column in columns.items():
        if name not in allowed:
            words = ", ".join(allowed) or f"nothing: {kind!r} has no choices"
            raise ConfigError(name, column, words, nearest(name, allowed))
    return KINDS[kind](data, **columns)


def _frame(data: Data, *needed: str) -> tuple[pd.DataFrame, str | None]:
    """The rows to plot, and the batch that they are of."""
    if isinstance(data, Batch):
        frame: pd.DataFrame = data.df()
        name: str | None = data.name
    elif isinstance(data, pd.DataFrame):
        frame, name = data, data.attrs.get("batch")
    else:
        raise ConfigError("data", data, "a Batch, or a DataFrame as batch.df() and oq.sql give it")
    for column in needed:
        shapes.known("column", column, frame.columns)
    return frame, name


def _of(name: str | None) -> str:
    return "" if name is None else f" of {name}"
