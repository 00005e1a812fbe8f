"""From configuration to stores. Families are loaded by name, when they are first needed.

Components that name the same place share it: one connection, one lock, one transaction.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from omniq_nb.config.model import COMPONENTS, OmniQConfig, StorageBackendConfig, known_backends
from omniq_nb.config.options import BACKENDS, FileOptions
from omniq_nb.errors import ConfigError, StoreUnavailable
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
}
"""The stores that exist; the other backends of `BACKENDS` validate and wait for theirs."""


class StorageBackendFactory:
    """Makes stores. Nothing is connected before their ``open``."""

    @staticmethod
    def create_stores(config: OmniQConfig) -> Stores:
        """Make the four stores of a configuration.

        Raises
        ------
        ConfigError
            Something in the configuration is wrong.
        StoreUnavailable
            The store of a backend does not exist yet in this version.
        """
        places: dict[tuple[object, ...], Place] = {}

        def place(component: str) -> Place:
            backend = config.backend(component)
            key = (backend.backend_type, config.location(component), repr(_options(backend)))
            if key not in places:
                places[key] = _place(config, component)
            return places[key]

        return Stores(
            task_queue=place("task_queue").task_queue(),
            result_storage=place("result_storage").result_storage(),
            event_storage=place("event_storage").event_storage(),
            schedule_storage=place("schedule_storage").schedule_storage(),
        )

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
        added = [name for name in known_backends() if name not in BACKENDS]
        return {component: [*_PLACES, *added] for component in COMPONENTS}


def _alone(backend: StorageBackendConfig) -> Place:
    return _place(OmniQConfig(task_queue_backend=backend), "task_queue")


def _options(backend: StorageBackendConfig) -> object:
    return backend.options() if backend.backend_type in BACKENDS else backend.to_dict()


def _place(config: OmniQConfig, component: str) -> Place:
    backend = config.backend(component)
    kind = backend.backend_type
    if kind not in BACKENDS:
        return _added(kind)(backend)
    options = backend.options()
    if kind not in _PLACES:
        raise StoreUnavailable(
            f"the {kind} {component.replace('_', ' ')} does not exist yet in this version of "
            f"omniq_nb; its configuration is valid. Available now: {', '.join(_PLACES)}."
        )
    module, _, name = _PLACES[kind].partition(":")
    make: Callable[..., Place] = getattr(import_module(module), name)
    if kind == "memory":
        return make()
    if isinstance(options, FileOptions) and options.storage_options:
        raise ConfigError(
            "config.storage_options", "options", "none for local folders; use s3, gcs or azure"
        )
    return make(config.location(component), options)


def _added(kind: str) -> Callable[[StorageBackendConfig], Place]:
    (point, *_) = entry_points(group="omniq_nb.backends", name=kind)
    make: Callable[[StorageBackendConfig], Place] = point.load()
    return make
