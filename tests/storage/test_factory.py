"""From configuration to stores: which are made, and which share a place."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import omniq_nb
from omniq_nb import OmniQ
from omniq_nb.config import COMPONENTS, OmniQConfig, StorageBackendConfig, backend
from omniq_nb.errors import ConfigError
from omniq_nb.storage import factory
from omniq_nb.storage.base import EventStore, ResultStore, ScheduleStore, TaskQueue
from omniq_nb.storage.factory import StorageBackendFactory

ROOT = Path(omniq_nb.__file__).parent.parent
INTERFACES = dict(zip(COMPONENTS, (TaskQueue, ResultStore, EventStore, ScheduleStore), strict=True))


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "file"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_can_be_made_alone(kind, component):
    make = getattr(StorageBackendFactory, f"create_{component}")
    assert isinstance(make(StorageBackendConfig(kind)), INTERFACES[component])


def test_the_supported_backends_are_listed_by_component():
    supported = StorageBackendFactory.get_supported_backends()
    assert list(supported) == list(COMPONENTS)
    assert all(kinds[:3] == ["memory", "sqlite", "file"] for kinds in supported.values())


@pytest.mark.parametrize(
    ("queue", "results", "shared"),
    [
        ("sqlite:///t.db", "./t.db", True),
        ("sqlite:///t.db", None, True),
        ("sqlite:///t.db", "sqlite:///u.db", False),
        ("sqlite:///t.db", "sqlite:///t.db?synchronous=FULL", False),
        (":memory:", "sqlite://", True),
    ],
)
def test_components_that_name_the_same_place_commit_together(queue, results, shared):
    config = OmniQConfig(task_queue_backend=queue, result_storage_backend=results)
    stores = StorageBackendFactory.create_stores(config)
    assert stores.task_queue.commits_with(stores.result_storage) is shared


async def test_two_omniqs_in_memory_are_strangers():
    config = OmniQConfig(task_queue_backend="memory://")
    with OmniQ(config) as one, OmniQ(config) as other:
        one.submit(len, "abc")
        assert len(one.tasks.df()) == 1
        assert len(other.tasks.df()) == 0


def test_making_stores_touches_nothing(tmp_path):
    for kind in ("memory", "sqlite", "file"):
        StorageBackendFactory.create_stores(OmniQConfig(task_queue_backend=kind))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "word"), [("s3", "bucket"), ("gcs", "bucket"), ("azure", "container")]
)
def test_a_bucket_without_a_name_is_asked_for(kind, word):
    with pytest.raises(ConfigError, match=f"or config with {word!r}"):
        StorageBackendFactory.create_task_queue(StorageBackendConfig(kind))


def test_an_unknown_type_is_a_value_error():
    with pytest.raises(ValueError, match="unsupported_backend"):
        StorageBackendFactory.create_task_queue(StorageBackendConfig("unsupported_backend"))


def test_a_package_may_add_a_backend(monkeypatch):
    point = EntryPoint("other", "tests.storage.test_factory:OtherPlace", "omniq_nb.backends")
    monkeypatch.setattr(backend, "known_backends", lambda: ("memory", "sqlite", "file", "other"))
    monkeypatch.setattr(factory, "entry_points", lambda **_: [point])
    config = OmniQConfig(
        task_queue_backend=StorageBackendConfig("other", "anything", {"size": 1}),
        event_storage_backend="memory",
    )
    stores = StorageBackendFactory.create_stores(config)
    assert stores.task_queue is stores.schedule_storage
    assert stores.task_queue.config == {"size": 1}


class OtherPlace:
    def __init__(self, backend):
        self.config = backend.config

    def itself(self):
        return self

    task_queue = result_storage = schedule_storage = itself


def test_a_wrong_configuration_is_found_before_anything_is_made(tmp_path):
    config = OmniQConfig(task_queue_backend="sqlite", schedule_storage_backend="file:///${NOT_SET}")
    with pytest.raises(ConfigError, match=r"schedule_storage_backend\.url.*NOT_SET"):
        StorageBackendFactory.create_stores(config)
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_loads_no_store_and_nothing_heavy():
    heavy = {"duckdb", "pandas", "pyarrow", "fsspec", "ipywidgets", "omniq_nb.storage.sql"}
    code = (
        f"import sys, omniq_nb.config, omniq_nb.storage.factory; print({heavy} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip() == "set()"
