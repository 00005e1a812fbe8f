"""What every backend is held to: one behavioural suite for each of the four interfaces.

A backend proves itself by saying how a fresh place is made::

    class TestMyQueue(TaskQueueSuite):
        @pytest.fixture
        def new_recipe(self, tmp_path):
            return lambda: Recipe("my_package:MyPlace", (str(tmp_path / uuid4().hex),))

The suites know the interfaces of `omniq_nb.storage.base` and nothing else: no backend, no
file, no table. They need pytest, pytest-asyncio (``asyncio_mode = "auto"``) and Hypothesis,
all in ``omniq_nb[test]``. The heaviest tests carry the mark ``heavy``, to be registered by
whoever runs them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omniq_nb.testing.events import EventStoreSuite as EventStoreSuite
    from omniq_nb.testing.places import Place as Place
    from omniq_nb.testing.places import Recipe as Recipe
    from omniq_nb.testing.queue import TaskQueueSuite as TaskQueueSuite
    from omniq_nb.testing.results import ResultStoreSuite as ResultStoreSuite
    from omniq_nb.testing.schedules import ScheduleStoreSuite as ScheduleStoreSuite

_MODULES = {
    "Place": "places",
    "Recipe": "places",
    "TaskQueueSuite": "queue",
    "ResultStoreSuite": "results",
    "EventStoreSuite": "events",
    "ScheduleStoreSuite": "schedules",
}


def __getattr__(name: str) -> object:
    """Import a suite when it is asked for: the child processes of the tests need none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    # A bare assert then says what it compared.
    asserting = {*_MODULES.values(), "comparison", "processes", "scans", "suite"}
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in asserting))
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
