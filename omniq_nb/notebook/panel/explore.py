"""The tab *Explore*: a query, its rows a page at a time, a plot, a file, the code for it.

Not here: what can be queried (docs/tables.md), and the rows (`omniq_nb.notebook.panel.rows`).
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ipywidgets import Box, Button, Dropdown, Output, Text, Textarea, VBox

from omniq_nb.notebook.live import Watch
from omniq_nb.notebook.panel.errands import Status, errand, queries_ready
from omniq_nb.notebook.panel.pieces import SHORT, Code, Grid
from omniq_nb.sync import OmniQ

if TYPE_CHECKING:
    from omniq_nb.notebook.panel.rows import Rows
    from omniq_nb.notebook.plots import Plot

EXAMPLES = {
    "The newest results": "SELECT * FROM results ORDER BY finished_at DESC LIMIT 1000",
    "Tasks by queue and state": (
        "SELECT queue, state, count(*) AS tasks, avg(duration) AS seconds\n"
        "FROM tasks GROUP BY ALL ORDER BY ALL"
    ),
    "The most frequent errors": (
        "SELECT error, count(*) AS tasks, max(finished_at) AS last\n"
        "FROM results WHERE state = 'failed' GROUP BY ALL ORDER BY tasks DESC"
    ),
    "The slowest tasks": (
        "SELECT name, batch, duration, worker, started_at\n"
        "FROM results ORDER BY duration DESC NULLS LAST LIMIT 100"
    ),
    "How long tasks waited": (
        "SELECT queue, name, epoch(started_at - created_at) AS waited, started_at\n"
        "FROM results ORDER BY started_at"
    ),
    "What happened lately": "SELECT * FROM events ORDER BY created_at DESC LIMIT 1000",
    "Workers": "SELECT * FROM workers",
}
"""Queries to begin with."""


class Explore:
    """The tab.

    Parameters
    ----------
    oq : OmniQ
        Whose stores.
    """

    def __init__(self, oq: OmniQ) -> None:
        self._oq = oq
        self.rows: Rows | None = None
        self._running: Future[None] | None = None
        self._turn = 0
        self.examples = Dropdown(options=list(EXAMPLES), description="Examples")
        # Texts are sent when they are left: a click must not overtake what was just typed.
        self.query = Textarea(
            next(iter(EXAMPLES.values())), description="SQL", rows=4, continuous_update=False
        )
        self.query.layout.width = "auto"
        self.run = Button(description="Run", button_style="primary")
        self.cancel = Button(description="Cancel", disabled=True)
        self.filter = Text(
            description="Filter",
            placeholder="duration > 1 AND state = 'failed'",
            continuous_update=False,
        )
        self.filter.layout.width = "auto"
        self.grid = Grid(self._page, self._sorted)
        self.column = Dropdown(options=[], description="Column", style=SHORT)
        self.against = Dropdown(options=[], description="Against", style=SHORT)
        self.histogram = Button(description="Histogram")
        self.timeline = Button(description="Timeline")
        self.scatter = Button(description="Scatter", tooltip="Column by the other one")
        self.plot = Output()
        self.file = Text(
            "result.csv",
            description="File",
            placeholder=".csv or .parquet",
            continuous_update=False,
            style=SHORT,
        )
        self.export = Button(description="Export")
        self.code = Code(label="As code")
        self._status = Status()
        self._result = VBox(
            [
                self.filter,
                self.grid,
                Box([self.column, self.against]).add_class("omniq-flow"),
                Box([self.histogram, self.timeline, self.scatter]).add_class("omniq-flow"),
                self.plot,
                Box([self.file, self.export]).add_class("omniq-flow"),
                self.code,
            ]
        )
        self._result.layout.display = "none"
        self.view = VBox(
            [
                self.examples,
                self.query,
                Box([self.run, self.cancel]).add_class("omniq-flow"),
                self._status.view,
                self._result,
            ]
        )
        self.examples.observe(self._example, "value")
        self.run.on_click(lambda _: self._ask())
        self.cancel.on_click(lambda _: self._cancel())
        self.filter.observe(lambda _: self._arrange(self._order()), "value")
        self.histogram.on_click(lambda _: self._draw("histogram", self.column.value))
        self.timeline.on_click(lambda _: self._draw("timeline", self.column.value))
        self.scatter.on_click(
            lambda _: self._draw("scatter", self.against.value, self.column.value)
        )
        self.export.on_click(lambda _: self._export())
        queries_ready()  # begin to load what the first query needs

    def watch(self) -> Sequence[Watch[Any]]:
        """Nothing here changes by itself."""
        return []

    # ---------------------------------------------------------------- the query

    def _example(self, change: dict[str, Any]) -> None:
        self.query.value = EXAMPLES[change["new"]]

    def _ask(self) -> None:
        self._do(self._answer(self.query.value), self._show)

    async def _answer(self, query: str) -> "Rows":
        from omniq_nb.notebook.panel.rows import Rows

        return Rows(query, await self._oq._caller.engine.explorer.sql(query))

    def _show(self, rows: "Rows") -> None:
        self.rows = rows
        names = rows.table.column_names
        for choice, likely in zip((self.column, self.against), rows.likely(), strict=True):
            kept = choice.value if choice.value in names else likely
            choice.options = names
            choice.value = kept
        self.filter.value = ""
        self.plot.outputs = ()
        self._result.layout.display = ""
        self._present()

    # ---------------------------------------------------------------- its rows

    def _order(self) -> tuple[str, bool]:
        return ("", False) if self.rows is None else self.rows.order

    def _sorted(self, column: str, descending: bool) -> None:
        self._arrange((column, descending))

    def _arrange(self, order: tuple[str, bool]) -> None:
        rows, condition = self.rows, self.filter.value.strip()
        if rows is not None and (condition, order) != (rows.condition, rows.order):
            self._do(rows.arranged(condition, order), self._arranged)

    def _arranged(self, rows: "Rows") -> None:
        self.rows = rows
        self._present()

    def _present(self) -> None:
        rows = self.rows
        if rows is not None:
            self.grid.show(rows.columns(), rows.total, rows.order)
            self.code.text = rows.code()

    def _page(self, first: int, count: int) -> list[list[str | None]]:
        return [] if self.rows is None else self.rows.page(first, count)

    # ---------------------------------------------------------------- plots and files

    def _draw(self, kind: str, *columns: str | None) -> None:
        rows = self.rows
        chosen = [column for column in columns if column is not None]
        if rows is not None and len(chosen) == len(columns):
            self._do(_plot(rows, kind, chosen), self._drawn)

    def _drawn(self, output: dict[str, Any]) -> None:
        self.plot.outputs = (output,)

    def _export(self) -> None:
        rows = self.rows
        if rows is not None:
            self._do(
                rows.export(self.file.value),
                lambda path: self._status.say(f"{rows.total:,} rows are in {path}"),
            )

    # ---------------------------------------------------------------- one thing at a time

    def _do(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        """Do it off the kernel's thread, instead of what may still be under way."""
        if self._running is not None:
            self._running.cancel()
        self._turn += 1
        turn = self._turn
        self._status.say("")
        self.cancel.disabled, self.run.description = False, "Running…"

        def over() -> None:
            if turn == self._turn:
                self.cancel.disabled, self.run.description = True, "Run"

        self._running = errand(work, done, self._status.complain, over)

    def _cancel(self) -> None:
        if self._running is not None and self._running.cancel():
            self._status.say("Cancelled")


async def _plot(rows: "Rows", kind: str, columns: Sequence[str]) -> dict[str, Any]:
    """A plot as an output of a cell. Drawing takes its time, so it has a thread."""
    from omniq_nb.notebook.panel import charts

    table = await rows.select(*dict.fromkeys(columns))

    def draw() -> dict[str, Any]:
        plot: Plot = getattr(charts, kind)(table, *columns)
        data, metadata = plot._repr_mimebundle_()
        return {"output_type": "display_data", "data": data, "metadata": metadata}

    return await asyncio.to_thread(draw)
