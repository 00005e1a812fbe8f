"""Timing that peers and we share. Standard library only: it also runs in the peers' environment."""

import json
import statistics
import sys
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def percentiles(values: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds, of seconds."""
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered) * 1000,
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    }


def report(**figures: object) -> None:
    """Give figures to the parent, as the last line of output."""
    print(json.dumps(figures))
    sys.stdout.flush()
