"""How plots look: Altair charts, and their pictures for front ends that cannot draw them.

Not here: what they draw from (`omniq_nb.notebook.shapes`).
"""

from collections.abc import Mapping
from io import BytesIO
from typing import Any, cast

import numpy as np
import pandas as pd

from omniq_nb.errors import ConfigError
from omniq_nb.models.task import State
from omniq_nb.notebook.shapes import Axis, Flow, Histogram, Lanes
from omniq_nb.notebook.theme import COLOURS

try:
    import altair as alt
    import vl_convert
    from PIL import Image
except ImportError as error:
    raise ConfigError(
        "plots",
        f"no {error.name}",
        'what the notebook extra brings: pip install "omniq_nb[notebook]"',
    ) from None

WIDTH, HEIGHT = 560, 240
"""Size of a plot in pixels."""

SHARPNESS = 2
"""Pixels of a picture for each pixel of a plot."""

LABELLED = 80
"""Cells of a heat map that have room for their numbers."""

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
"""The version of Vega-Lite that JupyterLab 4 has built in. A name: nobody fetches it."""

GREY = "#767676"
"""Text and lines where no theme is: readable on white and on black."""

Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def histogram_chart(shape: Histogram) -> Chart:
    """Bars of how many tasks took how long."""
    scale = alt.Scale(type="log" if shape.log else "linear", nice=False)
    chart: Chart = (
        alt.Chart(shape.rows)
        .mark_bar()
        .encode(
            x=alt.X("begin:Q", bin="binned", title="seconds", scale=scale, axis=_no_grid()),
            x2="end:Q",
            y=alt.Y("tasks:Q", title="tasks", stack=True),
            color=_by_state(shape.rows),
            tooltip=["tasks:Q", "state:N", "begin:Q", "end:Q"],
        )
    )
    return chart


def flow_chart(shape: Flow) -> Chart:
    """Bars of how many tasks ended when."""
    scale = alt.Scale(nice=False)
    title = _since(shape.origin)
    chart: Chart = (
        alt.Chart(shape.rows)
        .mark_bar()
        .encode(
            x=alt.X("begin:Q", bin="binned", title=title, scale=scale, axis=_no_grid()),
            x2="end:Q",
            y=alt.Y("rate:Q", title="tasks per second", stack=True),
            color=_by_state(shape.rows),
            tooltip=["tasks:Q", "rate:Q", "state:N", "begin:Q", "end:Q"],
        )
    )
    return chart


def lanes_chart(shape: Lanes) -> Chart:
    """A bar for each task, in the lanes of its worker."""
    step = float(np.clip(2 * HEIGHT / max(1, shape.lanes), 0.5, 20))
    rows = shape.rows
    # No bar is thinner than a pixel.
    thinnest = rows["end"].max() / (WIDTH - 100)
    rows = rows.assign(end=np.maximum(rows["end"], rows["begin"] + thinnest))
    header = alt.Header(labelAngle=0, labelAlign="left", labelLimit=140)
    chart: Chart = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("begin:Q", title=_since(shape.origin), scale=alt.Scale(nice=False)),
            x2="end:Q",
            y=alt.Y("lane:O", axis=None),
            color=_by_state(rows),
            tooltip=[name for name in rows if name not in ("lane", "begin", "end")],
        )
        .properties(width=WIDTH - 100, height=alt.Step(step))
        .facet(row=alt.Row("worker:N", title=None, header=header), spacing=6)
        .resolve_scale(y="independent")
    )
    return chart


def points_chart(rows: pd.DataFrame, parameter: Axis, value: str) -> Chart:
    """A point for each task: rows of `x` and `value`."""
    scale = alt.Scale(zero=False, padding=12)
    x = (
        alt.X("x:Q", title=parameter.name, scale=scale)
        if parameter.numeric
        else alt.X("x:N", title=parameter.name, sort=parameter.order)
    )
    chart: Chart = (
        alt.Chart(rows)
        .mark_circle(size=45, color=COLOURS[State.RUNNING], opacity=1, fillOpacity=0.7)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=value, scale=scale),
            tooltip=[
                alt.Tooltip("x:Q" if parameter.numeric else "x:N", title=parameter.name),
                alt.Tooltip("value:Q", title=value),
            ],
        )
    )
    return chart


def heat_map(cells: pd.DataFrame, across: Axis, up: Axis, value: str) -> Chart:
    """A cell for each pair of parameters, as bright as the mean of its tasks."""
    called = f"mean of {value}" if (cells["tasks"] > 1).any() else value
    flat = alt.Axis(labelAngle=0, labelOverlap=True)
    base = alt.Chart(cells).encode(
        x=alt.X("x:O", title=across.name, sort=across.order, axis=flat),
        y=alt.Y("y:O", title=up.name, sort=up.order[::-1]),
        tooltip=[
            alt.Tooltip("x:O", title=across.name),
            alt.Tooltip("y:O", title=up.name),
            alt.Tooltip("mean:Q", title=called, format=".4g"),
            alt.Tooltip("tasks:Q", title="tasks"),
        ],
    )
    squares: Chart = base.mark_rect().encode(
        color=alt.Color("mean:Q", title=called, scale=alt.Scale(scheme="viridis"))
    )
    if len(across.order) * len(up.order) > LABELLED:
        return squares
    middle = (cells["mean"].min() + cells["mean"].max()) / 2
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("mean:Q", format=".3g"),
        # Viridis is dark below and bright above.
        color=alt.condition(alt.datum["mean"] > middle, alt.value("black"), alt.value("white")),
    )
    chart: Chart = squares + numbers
    return chart


def parallel_chart(lines: pd.DataFrame, marks: pd.DataFrame, names: list[str], value: str) -> Chart:
    """A line for each task across the axes of its parameters and its value."""
    flat = alt.Axis(labelAngle=0, domain=False)
    x = alt.X("name:N", sort=names, title=None, axis=flat)
    y = alt.Y("place:Q", axis=None)
    drawn = (
        alt.Chart(lines)
        .mark_line(strokeOpacity=0.55, strokeWidth=1.2)
        .encode(
            x=x,
            y=y,
            detail="task:N",
            color=alt.Color(
                "value:Q",
                title=value,
                # Its ends cannot be seen as lines on a black or a white page.
                scale=alt.Scale(scheme=alt.SchemeParams(name="viridis", extent=[0.25, 0.85])),
                legend=alt.Legend(gradientOpacity=1),
            ),
        )
    )
    beside = alt.Chart(marks).encode(x=x, y=y)
    words = beside.mark_text(dy=-10, fontSize=12, fontWeight="bold", color=GREY)
    ticks = beside.mark_tick(color=GREY, width=9, thickness=1.5)
    chart: Chart = drawn + ticks + words.encode(text="word:N")
    return chart


def titled(chart: Chart, title: str) -> Chart:
    """The chart with its title, and as little else as lets it follow the page's theme."""
    chart = chart.properties(title=title, description=title, background="transparent")
    if not isinstance(chart, alt.FacetChart):
        chart = chart.properties(width=WIDTH, height=HEIGHT)
    calm: Chart = chart.configure_view(stroke=None).configure_axis(gridOpacity=0.3, titlePadding=8)
    return cast(Chart, calm.configure_title(anchor="start", fontSize=13))


def spec_of(chart: Chart) -> dict[str, Any]:
    """A chart in Vega-Lite, with all of its data in it."""
    with alt.data_transformers.enable("default", max_rows=None):  # the user's may write files
        return {**chart.to_dict(), "$schema": SCHEMA}


def picture_of(spec: Mapping[str, Any]) -> tuple[bytes, int, int]:
    """A chart as PNG, readable on any page, and the width and height to show it in."""
    config = dict(spec.get("config", {}))
    texts = {"labelColor": GREY, "titleColor": GREY}
    lines = {"domainColor": GREY, "tickColor": GREY, "gridColor": GREY}
    for part, colours in (
        ("axis", texts | lines),
        ("legend", texts),
        ("header", texts),
        ("title", {"color": GREY}),
    ):
        config[part] = {**config.get(part, {}), **colours}
    png: bytes = vl_convert.vegalite_to_png(
        {**spec, "config": config}, vl_version="5.20", scale=SHARPNESS, allowed_base_urls=[]
    )
    # It is saved with the notebook, and can be packed to a fifth.
    image, packed = Image.open(BytesIO(png)), BytesIO()
    image.save(packed, "png", optimize=True)
    return packed.getvalue(), image.width // SHARPNESS, image.height // SHARPNESS


def _no_grid() -> alt.Axis:
    return alt.Axis(grid=False)


def _by_state(rows: pd.DataFrame) -> Any:
    """The colour of a mark: its state's, where states are known."""
    present = set(rows["state"]) if "state" in rows else set()
    states = [state for state in COLOURS if str(state) in present]
    if not states:
        return alt.value(COLOURS[State.RUNNING])
    scale = alt.Scale(
        domain=[str(state) for state in states], range=[COLOURS[state] for state in states]
    )
    return alt.Color("state:N", title=None, scale=scale)


def _since(origin: float) -> str:
    if not origin:
        return "seconds"
    return f"seconds since {pd.Timestamp(origin, unit='s'):%Y-%m-%d %H:%M:%S} UTC"
