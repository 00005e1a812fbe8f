"""Tables of benchmarks in Markdown: what we do beside what others do."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison.

    Attributes
    ----------
    work : str
        What is measured.
    mine, unit : float, str
        Our figure.
    whose, theirs : str, float
        Whom it is held against, and their figure.
    least : float or None
        The ratio to reach; None where none is asked for.
    smaller : bool
        Whether less is better.
    """

    work: str
    mine: float
    unit: str
    whose: str
    theirs: float
    least: float | None
    smaller: bool = False

    @property
    def line(self) -> str:
        """It as a row of a table."""
        ratio = self.mine / self.theirs
        bound = ""
        if self.least is not None:
            met = ratio <= self.least if self.smaller else ratio >= self.least
            sign = "<=" if self.smaller else ">="
            bound = f"{sign} {self.least:g}x {'yes' if met else 'NO'}"
        return (
            f"| {self.work} | {number(self.mine)} {self.unit} | {self.whose} "
            f"| {number(self.theirs)} {self.unit} | {ratio:.2f} | {bound} |"
        )


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of a table."""
    return [
        "| work | omniq_nb | held against | it does | ratio | at least |",
        "|---|---:|---|---:|---:|---|",
        *(row.line for row in rows),
    ]


def number(value: float) -> str:
    """A figure in three digits, or in all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def taken() -> str:
    """When and on what."""
    return (
        f"Taken {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()} on "
        f"{os.cpu_count()} cores ({platform.machine()})."
    )
