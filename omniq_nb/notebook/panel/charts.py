"""One-click plots of any query's result: a histogram, a timeline, a scatter plot.

Not here: plots that know what tasks are (`omniq_nb.notebook.plots`).
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from omniq_nb.errors import ConfigError
from omniq_nb.models.task import State
from omniq_nb.notebook.panel.rows import is_number
from omniq_nb.notebook.plots import Plot
from omniq_nb.notebook.theme import COLOURS

BINS = 40
"""Bars of numbers or moments."""

WORDS = 25
"""Bars of anything else: the most frequent ones."""

POINTS = 1_000
"""Points of a scatter plot; of more, every so manyth."""


def histogram(table: pa.Table, column: str) -> Plot:
    """How often which values occur in a column.

    Parameters
    ----------
    table : Arrow table
        The rows.
    column : str
        Any column.
    """
    import altair as alt

    values = table.column(column).drop_null()
    title = f"{column}: {len(values):,} values"
    if is_number(values.type):
        numbers = values.cast(pa.float64()).to_numpy()
        return _bars(numbers[np.isfinite(numbers)], column, title, "Q")
    words = pd.Series([str(value) for value in values.to_pylist()], dtype=object).value_counts()
    if len(words) > WORDS:
        title += f", the {WORDS} most frequent of {len(words):,}"
    shown = pd.DataFrame({"value": words.index[:WORDS], "rows": words.to_numpy()[:WORDS]})
    chart = (
        alt.Chart(shown)
        .mark_bar(color=COLOURS[State.RUNNING])
        .encode(
            x=alt.X("rows:Q", title="rows"),
            y=alt.Y("value:N", sort=None, title=column),
            tooltip=["value:N", "rows:Q"],
        )
    )
    return Plot(chart, title)


def timeline(table: pa.Table, column: str) -> Plot:
    """How many rows there are over time.

    Parameters
    ----------
    table : Arrow table
        The rows.
    column : str
        A column of moments.

    Raises
    ------
    ConfigError
        The column holds something else.
    """
    moments = table.column(column).drop_null()
    if not pa.types.is_temporal(moments.type) or pa.types.is_duration(moments.type):
        raise ConfigError("column", column, "for a timeline, a column of moments: created_at")
    times = moments.cast(pa.timestamp("ms"), safe=False).to_numpy().astype("datetime64[ms]")
    return _bars(times.astype(float), column, f"{column}: {len(times):,} rows over time", "T")


def scatter(table: pa.Table, x: str, y: str) -> Plot:
    """One column against another.

    Parameters
    ----------
    table : Arrow table
        The rows.
    x, y : str
        Columns of numbers or of moments; the vertical one of numbers.

    Raises
    ------
    ConfigError
        A column holds something else.
    """
    import altair as alt

    for name in (x, y):
        kind = table.column(name).type
        if not is_number(kind) and (name == y or not pa.types.is_timestamp(kind)):
            raise ConfigError("column", name, "for a scatter plot, a column of numbers")
    both = table.select([x] if x == y else [x, y]).drop_null()
    step = max(1, -(-both.num_rows // POINTS))
    shown = both.take(pa.array(range(0, both.num_rows, step), pa.int64()))
    moments = pa.types.is_timestamp(table.column(x).type)
    points = pd.DataFrame({"x": _column(shown, x), "y": _column(shown, y)})
    title = f"{y} by {x}: {both.num_rows:,} rows"
    if step > 1:
        title += f", {len(points):,} of them shown"
    chart = (
        alt.Chart(points)
        .mark_circle(color=COLOURS[State.RUNNING], opacity=0.6)
        .encode(
            x=alt.X("x:T" if moments else "x:Q", title=x, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip("x", title=x), alt.Tooltip("y", title=y)],
        )
    )
    return Plot(chart, title)


def _column(table: pa.Table, name: str) -> Any:
    column = table.column(name)
    if pa.types.is_timestamp(column.type):
        return pd.to_datetime(column.cast(pa.timestamp("ms"), safe=False).to_pandas())
    return column.cast(pa.float64()).to_numpy()


def _bars(numbers: Any, column: str, title: str, kind: str) -> Plot:
    """Counts between equal steps; of numbers, or of milliseconds since 1970."""
    import altair as alt

    counts, edges = np.histogram(numbers, bins=BINS if len(numbers) else 1)
    bars = pd.DataFrame({"begin": edges[:-1], "end": edges[1:], "rows": counts})
    if kind == "T":
        bars["begin"], bars["end"] = (pd.to_datetime(bars[e], unit="ms") for e in ("begin", "end"))
    chart = (
        alt.Chart(bars)
        .mark_bar(color=COLOURS[State.RUNNING])
        .encode(
            x=alt.X(f"begin:{kind}", title=column, scale=alt.Scale(nice=False)),
            x2="end",
            y=alt.Y("rows:Q", title="rows"),
            y2=alt.datum(0),
            tooltip=[f"begin:{kind}", f"end:{kind}", "rows:Q"],
        )
    )
    return Plot(chart, title)
