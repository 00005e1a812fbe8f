"""What the client's tests share: the three local configurations, and functions to submit."""

import threading
from pathlib import Path

import pytest

from omniq_nb import current_task

BACKENDS = ("memory", "sqlite", "file")


def url_of(backend: str, tmp_path: Path) -> str:
    return {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path / 'omniq.db'}",
        "file": f"file://{tmp_path / 'omniq'}",
    }[backend]


backends = pytest.mark.parametrize("backend", BACKENDS)


def add(a: int, b: int) -> int:
    return a + b


def divide(a: float, b: float) -> float:
    return a / b


def fail_until(attempt: int) -> int:
    """Fails in every attempt before this one."""
    task = current_task()
    if task.attempt < attempt:
        raise ConnectionError(f"attempt {task.attempt}")
    return task.attempt


async def add_later(a: int, b: int) -> int:
    return a + b


def wait_until_cancelled(started: "threading.Event | None" = None) -> str:
    """Runs until it is told to stop, at most a minute."""
    task = current_task()
    stop = threading.Event()
    for _ in range(6000):
        if task.cancelled:
            return "stopped"
        stop.wait(0.01)
    return "never told"
