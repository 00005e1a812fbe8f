"""The four servers with buckets: races between processes, addresses, secrets, what is lacking."""

import asyncio
import secrets
import subprocess
import sys
from contextlib import ExitStack

import pytest

from omniq_nb import OmniQ, OmniQConfig
from omniq_nb.config import StorageBackendConfig
from omniq_nb.config.options import fields, is_secret
from omniq_nb.errors import StoreUnavailable
from omniq_nb.storage.buckets import connection as connections
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.storage.probe import probe
from omniq_nb.testing import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.servers.buckets import BUCKET
from omniq_nb.testing.suite import opened

SERVERS = {"moto": "S3Place", "seaweed": "S3Place", "azurite": "AzurePlace", "google": "GcsPlace"}

each_server = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in SERVERS]
)


def place_in(backend):
    where = OmniQConfig(task_queue_backend=backend).resolve("task_queue")
    return StorageBackendFactory.create_place(where)


AT_ONCE = 8


async def is_ready(queue):
    """Whoever answers is open."""


async def compete(queue, names):
    """Create objects that others create, too, several at once; tell which were won."""
    connection = queue._replica.log._connection
    room = asyncio.Semaphore(AT_ONCE)
    won = []

    async def create(name):
        async with room:
            if await connection.create(name, secrets.token_bytes(16)):
                won.append(name)

    await asyncio.gather(*map(create, names))
    return won


@each_server
def test_of_three_processes_one_wins_in_200_of_200(servers, kind):
    backend = servers(kind).backend()
    recipe = Recipe(f"omniq_nb.storage.buckets:{SERVERS[kind]}", (None, backend.options()))
    names = [f"race/{number}" for number in range(200)]
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(recipe, "task_queue")) for _ in range(3)]
        for process in processes:
            process.start(is_ready)
        for process in processes:
            process.answer()
        for process in processes:
            process.start(compete, names)
        won = [process.answer() for process in processes]
    assert sorted(name for some in won for name in some) == sorted(names)


@each_server
def test_a_notebook_works_with_nothing_but_a_bucket(servers, kind):
    with OmniQ(OmniQConfig(task_queue_backend=servers(kind).backend())) as oq:
        oq.workers.start(1)
        batch = oq.map(abs, [-1, -2, -3], name="absolute")
        assert batch.results(timeout=60) == [1, 2, 3]
        shown = oq.sql("select count(*) as n from events where type = 'succeeded'")
        assert shown.n.tolist() == [3]


@each_server
async def test_a_trial_says_what_a_bucket_promises(servers, kind):
    promises = await probe(OmniQConfig(task_queue_backend=servers(kind).backend()))
    assert [promise.problem for promise in promises] == [None] * 4
    assert "tried" in promises[0].promises["exclusion"]


@each_server
async def test_a_bucket_that_is_not_there_is_named(servers, kind):
    backend = servers(kind).backend()
    lost = StorageBackendConfig(
        backend.backend_type, backend.url.replace(BUCKET, "no-such-bucket"), backend.config
    )
    # SeaweedFS does not say so, but that access is denied.
    said = (
        "no-such-bucket.*: Permission" if kind == "seaweed" else "no-such-bucket.* does not exist"
    )
    with pytest.raises(StoreUnavailable, match=said):
        await place_in(lost).task_queue().open()


@pytest.mark.parametrize("kind", ["moto", "azurite", "google"])
async def test_a_server_that_is_not_there_is_an_error_soon_and_without_secrets(
    servers, kind, monkeypatch
):
    monkeypatch.setattr(connections, "CONNECTING", 0.5)
    server = servers.another(kind)  # never started
    backend = server.backend()
    with pytest.raises(StoreUnavailable) as caught:
        await place_in(backend).event_storage().open()
    known = fields(type(backend.options()))
    for name, field in known.items():
        secret = getattr(backend.options(), name)
        if is_secret(field) and secret and len(secret) > 6:
            assert secret not in str(caught.value)
    assert BUCKET in str(caught.value)


READERS = {
    "duckdb": """
import duckdb, fsspec
duckdb.register_filesystem(fsspec.filesystem("s3", **options))
rows = duckdb.sql(f"select value from read_parquet('s3://{folder}/results/date=*/*.parquet')")
found = [value for value, in rows.fetchall()]
""",
    "pandas": """
import fsspec, pandas
names = fsspec.filesystem("s3", **options).glob(f"{folder}/results/date=*/*.parquet")
tables = [pandas.read_parquet(f"s3://{name}", storage_options=options) for name in names]
found = pandas.concat(tables)["value"].tolist()
""",
    "polars": """
import polars
options = {"aws_endpoint_url": options["endpoint_url"], "aws_access_key_id": "key",
           "aws_secret_access_key": "secret", "aws_region": "us-east-1", "aws_allow_http": "true"}
rows = polars.scan_parquet(f"s3://{folder}/results/date=*/*.parquet", storage_options=options)
found = rows.collect()["value"].to_list()
""",
}


@pytest.mark.xdist_group("moto")
@pytest.mark.parametrize("reader", READERS)
def test_other_tools_read_the_bucket_without_us(servers, reader):
    server = servers("moto")
    with OmniQ(OmniQConfig(task_queue_backend=server.backend("read-by-others"))) as oq:
        oq.workers.start(1)
        oq.map(abs, [-1, -2, -3], name="absolute").results(timeout=60)
    options = {"endpoint_url": server.url, "key": "key", "secret": "secret"}
    program = f"options, folder = {options!r}, '{BUCKET}/read-by-others'" + READERS[reader]
    program += "import sys; print(sorted(set(found)), 'omniq_nb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['1', '2', '3'] False\n"


@pytest.mark.xdist_group("moto")
async def test_two_prefixes_are_two_places(servers):
    one, other = (place_in(servers("moto").backend()) for _ in range(2))
    schedules = [place.task_queue() for place in (one, other)]
    for queue in schedules:
        await queue.open()
    from omniq_nb.testing.samples import task

    await schedules[0].add([task("t")])
    assert [await queue.get(["t"]) for queue in schedules][1] == [None]
    for queue in schedules:
        await queue.close()


@pytest.mark.xdist_group("moto")
async def test_storage_options_reach_the_driver(servers):
    backend = servers("moto").backend()
    backend = StorageBackendConfig(
        "s3",
        backend.url,
        backend.config | {"storage_options": {"config_kwargs": {"user_agent_extra": "mine"}}},
    )
    place = place_in(backend)
    await place.event_storage().open()
    fs = place.connection._session().fs
    assert fs.config_kwargs["user_agent_extra"] == "mine"
    assert fs.config_kwargs["retries"]["total_max_attempts"] == 1
    await place.event_storage().close()


@pytest.mark.xdist_group("moto")
def test_a_second_query_fetches_nothing_that_it_has(servers):
    place = place_in(servers("moto").backend())
    from omniq_nb.storage.base import Query
    from omniq_nb.testing.samples import event

    async def main():
        events = place.event_storage()
        await events.open()
        await events.append([event(f"e{number}") for number in range(100)])
        await events.compact()
        (file,) = (await events.scan(Query())).files
        before = place.connection.usage
        (same,) = (await events.scan(Query())).files
        assert same == file
        after = place.connection.usage
        assert after.reads - before.reads <= 4, "manifests at most"
        assert after.lists - before.lists <= 2, "the folders of today and, near midnight, the next"
        await events.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in ("seaweed", "google")],
)
async def test_more_objects_than_a_page_of_a_listing_are_listed_and_deleted(servers, kind):
    place = place_in(servers(kind).backend())
    async with opened(place.event_storage()):
        names = [f"{number:04}" for number in range(1_001)]
        connection = place.connection
        await connection.put_all({f"many/{name}": b"" for name in names})
        found = await connection.list("many")
        assert sorted(one.name for one in found) == names
        await connection.delete(f"many/{name}" for name in names)
        assert await connection.list("many") == []
