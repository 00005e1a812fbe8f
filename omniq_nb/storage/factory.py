"""From configuration to stores. Families are loaded by name, when they are first needed.

Components that name the same place share it: one connection, one lock, one transaction.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from omniq_nb.config.backend import StorageBackendConfig, known_backends
from omniq_nb.config.model import COMPONENTS, OmniQConfig, Resolved
from omniq_nb.config.options import BACKENDS
from omniq_nb.storage.base import EventStore, ResultStore, ScheduleStore, Stores, TaskQueue


class Place(Protocol):
    """A database, a folder or a space in memory, and the stores that share it."""

    def task_queue(self) -> TaskQueue:
        """Tasks in this place."""

    def result_storage(self) -> ResultStore:
        """Results in this place."""

    def event_storage(self) -> EventStore:
        """Events in this place."""

    def schedule_storage(self) -> ScheduleStore:
        """Schedules in this place."""


_PLACES = {
    "memory": "omniq_nb.storage.memory:MemoryPlace",
    "sqlite": "omniq_nb.storage.sql:SqlitePlace",
    "file": "omniq_nb.storage.file:FilePlace",
    "redis": "omniq_nb.storage.redis:RedisPlace",
    "postgres": "omniq_nb.storage.sql:PostgresPlace",
    "nats": "omniq_nb.storage.nats:NatsPlace",
    "s3": "omniq_nb.storage.buckets:S3Place",
    "gcs": "omniq_nb.storage.buckets:GcsPlace",
    "azure": "omniq_nb.storage.buckets:AzurePlace",
}
"""The place of each backend."""


class StorageBackendFactory:
    """Makes stores. Nothing is connected before their ``open``."""

    @staticmethod
    def create_stores(config: OmniQConfig) -> Stores:
        """Make the four stores of a configuration.

        Raises
        ------
        ConfigError
            Something in the configuration is wrong.
        """
        places: list[tuple[Resolved, Place]] = []

        def place(component: str) -> Place:
            where = config.resolve(component)
            for known, shared in places:
                if known == where:
                    return shared
            made = StorageBackendFactory.create_place(where)
            places.append((where, made))
            return made

        return Stores(
            task_queue=place("task_queue").task_queue(),
            result_storage=place("result_storage").result_storage(),
            event_storage=place("event_storage").event_storage(),
            schedule_storage=place("schedule_storage").schedule_storage(),
        )

    @staticmethod
    def create_place(where: Resolved) -> Place:
        """Make a place for the components that share it. Nothing is connected yet."""
        kind = where.backend_type
        if kind not in BACKENDS:
            return _added(kind)(where.backend)
        module, _, name = _PLACES[kind].partition(":")
        make: Callable[..., Place] = getattr(import_module(module), name)
        return make() if kind == "memory" else make(where.location, where.options)

    @staticmethod
    def create_task_queue(backend: StorageBackendConfig) -> TaskQueue:
        """Make a task queue alone."""
        return _alone(backend).task_queue()

    @staticmethod
    def create_result_storage(backend: StorageBackendConfig) -> ResultStore:
        """Make a result storage alone."""
        return _alone(backend).result_storage()

    @staticmethod
    def create_event_storage(backend: StorageBackendConfig) -> EventStore:
        """Make an event storage alone."""
        return _alone(backend).event_storage()

    @staticmethod
    def create_schedule_storage(backend: StorageBackendConfig) -> ScheduleStore:
        """Make a schedule storage alone."""
        return _alone(backend).schedule_storage()

    @staticmethod
    def get_supported_backends() -> dict[str, list[str]]:
        """List the backends whose stores exist, by component."""
        added = known_backends()[len(BACKENDS) :]
        return {component: [*_PLACES, *added] for component in COMPONENTS}


def _alone(backend: StorageBackendConfig) -> Place:
    where = OmniQConfig(task_queue_backend=backend).resolve("task_queue")
    return StorageBackendFactory.create_place(where)


def _added(kind: str) -> Callable[[StorageBackendConfig | None], Place]:
    (point, *_) = entry_points(group="omniq_nb.backends", name=kind)
    make: Callable[[StorageBackendConfig | None], Place] = point.load()
    return make
