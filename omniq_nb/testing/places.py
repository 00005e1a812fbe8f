"""How a suite is told what to test. Child processes import this: no test library here."""

import importlib
from typing import NamedTuple, Protocol

from omniq_nb.storage.base import EventStore, ResultStore, ScheduleStore, TaskQueue


class Place(Protocol):
    """Somewhere that keeps all four components: a database, a folder, a space in memory."""

    def task_queue(self) -> TaskQueue: ...
    def result_storage(self) -> ResultStore: ...
    def event_storage(self) -> EventStore: ...
    def schedule_storage(self) -> ScheduleStore: ...


class Recipe(NamedTuple):
    """How to get a handle on one certain place, in this process or in another one.

    Attributes
    ----------
    constructor : str
        ``"package.module:Name"`` of a callable that returns a `Place`.
    arguments : tuple
        What it is called with; picklable.
    private : str
        Why no second handle sees the same data. Empty: each handle does, in every process and
        after a crash.
    """

    constructor: str
    arguments: tuple[object, ...] = ()
    private: str = ""

    def place(self) -> Place:
        """Give a fresh handle."""
        module, _, name = self.constructor.partition(":")
        place: Place = getattr(importlib.import_module(module), name)(*self.arguments)
        return place
