"""A place with all four stores in one database."""

from typing import Generic, TypeVar

from omniq_nb.storage.sql.database import Database
from omniq_nb.storage.sql.events import SqlEventStore
from omniq_nb.storage.sql.queue import SqlTaskQueue
from omniq_nb.storage.sql.results import SqlResultStore
from omniq_nb.storage.sql.schedules import SqlScheduleStore

D = TypeVar("D", bound=Database)


class SqlPlace(Generic[D]):
    """The four stores of one database, which they share.

    Parameters
    ----------
    database : Database
        Opened by the first store that is opened.
    """

    def __init__(self, database: D) -> None:
        self._database = database

    def task_queue(self) -> SqlTaskQueue:
        """Give the tasks."""
        return SqlTaskQueue(self._database)

    def result_storage(self) -> SqlResultStore:
        """Give the results."""
        return SqlResultStore(self._database)

    def event_storage(self) -> SqlEventStore:
        """Give the events."""
        return SqlEventStore(self._database)

    def schedule_storage(self) -> SqlScheduleStore:
        """Give the schedules."""
        return SqlScheduleStore(self._database)
