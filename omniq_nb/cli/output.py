"""How rows look: a table for people, or one JSON document for programs."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import click
import msgspec

WHOLE = ("task_id", "worker", "log")
"""Columns that are copied, and so are never broken, however narrow the terminal is."""

MOST = 1000
"""Characters of a line of a table at most."""

BROAD = 60
"""Characters of a line in other columns."""

_COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "dead": "red",
    "expired": "yellow",
    "cancelled": "yellow",
}

Row = Mapping[str, object]


def show(rows: Sequence[Row], *, as_json: bool, title: str = "", empty: str = "") -> None:
    """Print rows that have the same keys.

    Parameters
    ----------
    rows : sequence of mapping
        The rows.
    as_json : bool
        As a JSON array of objects, whole and unformatted.
    title : str
        Above a table.
    empty : str
        Instead of a table without rows.
    """
    if as_json:
        show_json(rows)
        return
    if not rows:
        click.echo(empty or "nothing")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for name, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(
            Text(name),
            justify="right" if number else "left",
            overflow="fold",
            max_width=None if name in WHOLE else BROAD,
        )
    for row in rows:
        table.add_row(*(Text(text(value), _COLOURS.get(str(value), "")) for value in row.values()))
    # The terminal may break the lines: better than broken ids.
    needed = Console(width=MOST).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)


def show_json(value: object) -> None:
    """Print a value as one JSON document."""
    click.echo(msgspec.json.encode(value).decode())


def text(value: object) -> str:
    """A cell of a table, for people."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        return msgspec.json.encode(value).decode()
    return str(value)
