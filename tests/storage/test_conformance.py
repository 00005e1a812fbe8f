"""Every backend, in every configuration, is held to the suites of `omniq_nb.testing`."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import msgspec
import pytest

from omniq_nb.config.backend import StorageBackendConfig
from omniq_nb.config.options import FileOptions, NatsOptions, RedisOptions, SqliteOptions
from omniq_nb.testing import (
    EventStoreSuite,
    Recipe,
    ResultStoreSuite,
    ScheduleStoreSuite,
    TaskQueueSuite,
)
from omniq_nb.testing.servers import Servers


class Configuration(NamedTuple):
    constructor: str
    arguments: Callable[[Path, Servers], tuple[object, ...]]
    private: str = ""
    eldest: bool = False  # of its family: it runs what takes seconds or starts processes
    server: str = ""  # whose tests share a process, if it is slow to start or to answer


def new_schema(servers: Servers) -> tuple[object, ...]:
    options = StorageBackendConfig.from_url(servers("postgres").url).options()
    return None, msgspec.structs.replace(options, schema=f"test {uuid4().hex}")


SQLITE = "omniq_nb.storage.sql:SqlitePlace"
FILE = "omniq_nb.storage.file:FilePlace"
REDIS = "omniq_nb.storage.redis:RedisPlace"
NATS = "omniq_nb.storage.nats:NatsPlace"
MEMORY = "omniq_nb.storage.memory:MemoryPlace"


def in_bucket(server: str, kind: str, eldest: bool = False) -> Configuration:
    """Below a prefix of its own in the server's bucket."""
    return Configuration(
        f"omniq_nb.storage.buckets:{kind}Place",
        lambda _, servers: (None, servers(server).backend().options()),
        eldest=eldest,
        server=server,
    )


CONFIGURATIONS = {
    "sqlite": Configuration(SQLITE, lambda path, _: (f"{path}.db", SqliteOptions()), eldest=True),
    "sqlite-full": Configuration(
        SQLITE, lambda path, _: (f"{path}.db", SqliteOptions(synchronous="FULL"))
    ),
    "sqlite-memory": Configuration(
        SQLITE,
        lambda path, _: (":memory:", SqliteOptions()),
        private="a database in memory belongs to its one connection",
    ),
    "file": Configuration(FILE, lambda path, _: (str(path), FileOptions()), eldest=True),
    "file-no-fsync": Configuration(FILE, lambda path, _: (str(path), FileOptions(fsync=False))),
    "redis": Configuration(
        REDIS,
        lambda _, servers: (None, redis_options(servers)),
        eldest=True,
    ),
    "postgres": Configuration(
        "omniq_nb.storage.sql:PostgresPlace", lambda _, servers: new_schema(servers), eldest=True
    ),
    "nats": Configuration(
        NATS,
        lambda path, servers: (
            None,
            NatsOptions(servers=(servers("nats").url,), stream=f"test-{uuid4().hex}"),
        ),
        eldest=True,
    ),
    "seaweed": in_bucket("seaweed", "S3"),
    "azurite": in_bucket("azurite", "Azure"),
    "google": in_bucket("google", "Gcs", eldest=True),
    "bucket-with-faults": Configuration(
        "omniq_nb.testing.clouds:faulty_place",
        lambda path, _: (0.01, len(str(path))),
        private="a bucket in memory belongs to its process",
    ),
    "memory": Configuration(
        MEMORY,
        lambda path, _: (),
        private="a space in memory belongs to its one handle",
        eldest=True,
    ),
}


def redis_options(servers: Servers) -> RedisOptions:
    server = servers("redis")
    return RedisOptions(
        host="127.0.0.1", port=server.port, password=server.password, prefix=uuid4().hex
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the configurations to which it applies, so that none is ever skipped."""
    names = list(CONFIGURATIONS)
    if metafunc.definition.get_closest_marker("heavy") or "start" in metafunc.fixturenames:
        names = [name for name in names if CONFIGURATIONS[name].eldest]
    if "shared" in metafunc.fixturenames:
        names = [name for name in names if not CONFIGURATIONS[name].private]
    metafunc.parametrize(
        "configuration",
        [
            pytest.param(name, marks=pytest.mark.xdist_group(server))
            if (server := CONFIGURATIONS[name].server)
            else name
            for name in names
        ],
    )


class Places:
    @pytest.fixture
    def new_recipe(
        self, configuration: str, tmp_path: Path, servers: Servers
    ) -> Callable[[], Recipe]:
        constructor, arguments, private = CONFIGURATIONS[configuration][:3]
        numbers = count()
        return lambda: Recipe(
            constructor, arguments(tmp_path / str(next(numbers)), servers), private
        )

    @pytest.fixture
    def reopenings(self, configuration: str) -> int:
        return 25 if CONFIGURATIONS[configuration].server else 150


class TestTaskQueue(Places, TaskQueueSuite):
    pass


class TestResultStore(Places, ResultStoreSuite):
    pass


class TestEventStore(Places, EventStoreSuite):
    pass


class TestScheduleStore(Places, ScheduleStoreSuite):
    pass
