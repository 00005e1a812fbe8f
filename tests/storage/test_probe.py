"""Trying a configuration: what works says what it promises, what does not says why."""

import asyncio

import pytest

from omniq_nb.config import COMPONENTS, OmniQConfig
from omniq_nb.config.options import PostgresOptions
from omniq_nb.explore import Explorer
from omniq_nb.storage import probe as probing
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.storage.memory import MemoryPlace
from omniq_nb.storage.probe import probe


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "durability", "sharing"),
    [
        ("memory://", "gone with this process", "this process only"),
        (":memory:", "gone with this process", "this process only"),
        ("a.db", "a power cut may undo the last moments", "all processes of this machine"),
        ("sqlite:///a.db?synchronous=FULL", "crashes and power cuts", "all processes"),
        ("sqlite:///a.db?synchronous=OFF", "not power cuts", "all processes"),
        ("./folder", "crashes and power cuts", "all processes of this machine"),
        ("file:///tmp/omniq-x?fsync=no", "not power cuts", "all processes of this machine"),
    ],
)
async def test_a_backend_says_what_it_promises(tmp_path, url, durability, sharing):
    url = url.replace("/tmp/omniq-x", str(tmp_path / "x"))
    found = await probe(OmniQConfig(task_queue_backend=url))
    assert [promise.component for promise in found] == list(COMPONENTS)
    for promise in found:
        assert promise.problem is None
        assert durability in promise.promises["durability"]
        assert sharing in promise.promises["sharing"]
        assert promise.promises["checked"]
    assert ["exclusion" in promise.promises for promise in found] == [True, False, False, False]


@pytest.mark.parametrize("kind", ["nats", "postgres", "redis"])
async def test_a_server_is_asked_what_it_promises(servers, kind):
    for promise in await probe(OmniQConfig(task_queue_backend=servers(kind).url)):
        assert promise.problem is None
        assert {"durability", "sharing", "checked"} <= promise.promises.keys()
        assert "machines" in promise.promises["sharing"]


async def test_it_says_whether_results_and_tasks_share_a_transaction():
    together = await probe(OmniQConfig(task_queue_backend="a.db"))
    apart = await probe(OmniQConfig(task_queue_backend="a.db", result_storage_backend="b.db"))
    assert "together" in together[1].promises
    assert "together" not in apart[1].promises


async def test_each_component_has_a_problem_of_its_own(tmp_path):
    (tmp_path / "no.db").write_text("this is no database, whatever its name says" * 100)
    config = OmniQConfig(
        task_queue_backend="memory://",
        result_storage_backend="no.db",
        event_storage_backend="redis://user:${NOT_SET}@host/0",
        schedule_storage_backend="sqlite:///a.db?timeout=${ALSO_NOT_SET}",
    )
    queue, results, events, schedules = await probe(config)
    assert queue.problem is None
    assert "no.db" in results.problem
    assert "NOT_SET" in events.problem
    assert "ALSO_NOT_SET" in schedules.problem


@pytest.mark.parametrize("url", ["memory://", "a.db", "./folder"])
async def test_nothing_of_the_trial_stays(url):
    config = OmniQConfig(task_queue_backend=url)
    await probe(config)
    stores = StorageBackendFactory.create_stores(config)
    for store in (stores.task_queue, stores.result_storage, stores.event_storage):
        await store.open()
    await stores.schedule_storage.open()
    try:
        explorer = Explorer(stores)
        for view in ("tasks", "results", "events", "schedules", "workers"):
            assert (await explorer.table(view)).num_rows == 0
    finally:
        for store in (stores.schedule_storage, stores.event_storage, stores.result_storage):
            await store.close()
        await stores.task_queue.close()


class Broken(MemoryPlace):
    """A place whose driver speaks too much."""

    async def promises(self):
        raise RuntimeError("no route to postgresql://me:hunter2@host/db")


async def test_a_drivers_own_error_is_shown_without_the_password(monkeypatch):
    known = probing.Resolved("postgres", None, PostgresOptions(password="hunter2"), None)
    monkeypatch.setattr(OmniQConfig, "resolve", lambda config, component: known)
    monkeypatch.setattr(StorageBackendFactory, "create_place", lambda where: Broken())
    for promise in await probe(OmniQConfig(task_queue_backend="memory://")):
        assert promise.problem == "RuntimeError: no route to postgresql://me:***@host/db"


class Silent(MemoryPlace):
    """A place that never answers."""

    async def promises(self):
        await asyncio.Event().wait()


async def test_a_place_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(probing, "PATIENCE", 0.05)
    monkeypatch.setattr(StorageBackendFactory, "create_place", lambda where: Silent())
    for promise in await probe(OmniQConfig(task_queue_backend="memory://")):
        assert promise.problem == "no answer within 0.05 seconds"


async def test_a_store_that_lets_a_stale_write_pass_is_found_out(monkeypatch):
    class Careless(MemoryPlace):
        def schedule_storage(self):
            store = super().schedule_storage()

            async def put(schedule, expected_version):
                return True

            store.put = put
            return store

    monkeypatch.setattr(StorageBackendFactory, "create_place", lambda where: Careless())
    *others, schedules = await probe(OmniQConfig(task_queue_backend="memory://"))
    assert [promise.problem for promise in others] == [None, None, None]
    assert "came too late was accepted" in schedules.problem
