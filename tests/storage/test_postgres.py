"""What PostgreSQL adds to the suites: where it is, who may use it, how it claims, wakes, scans."""

import asyncio
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from omniq_nb import OmniQ
from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.config.options import PostgresOptions
from omniq_nb.errors import StoreError, StoreUnavailable, StoreVersionError
from omniq_nb.models.task import Settle, State
from omniq_nb.portal import LoopThread
from omniq_nb.storage.base import Query, Stores
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.storage.sql.postgres_connections import channel, connect, libpq_url
from omniq_nb.storage.sql.postgres_queue import CLAIM, DUE_IN, SETTLE, PostgresTaskQueue
from omniq_nb.storage.sql.postgres_statements import sql
from omniq_nb.storage.sql.queue import GET
from omniq_nb.storage.sql.schema import MIGRATIONS, VERSION
from omniq_nb.storage.sql.transitions import FENCE_OFF, HELD, PICK
from omniq_nb.testing.proxy import Proxy
from omniq_nb.testing.samples import NOON, event, result, task
from omniq_nb.testing.servers import Server, Servers
from omniq_nb.testing.servers.postgres import PASSWORD, USER
from omniq_nb.testing.suite import until

ROOT = Path(__file__).parent.parent.parent
LEASE = 30.0


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers("postgres")


@pytest.fixture
def schema() -> str:
    return f"t{uuid4().hex}"


@pytest.fixture
def url(server: Server, schema: str) -> str:
    return f"{server.url}?schema={schema}"


def stores_at(url: str) -> Stores:
    return StorageBackendFactory.create_stores(OmniQConfig(task_queue_backend=url))


def options_of(url: str) -> PostgresOptions:
    options = StorageBackendConfig.from_url(url).options()
    assert isinstance(options, PostgresOptions)
    return options


@asynccontextmanager
async def queue_at(url: str) -> AsyncIterator[PostgresTaskQueue]:
    queue = stores_at(url).task_queue
    assert isinstance(queue, PostgresTaskQueue)
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def role(admin: asyncpg.Connection, schema: str) -> AsyncIterator[str]:
    """Somebody with no right at all."""
    name = f"worker_{schema}"
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield name
    await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def works(url: str) -> None:
    """Tasks run there, and DuckDB reads them: that is another driver, with the same options."""
    with OmniQ(url) as oq:
        oq.workers.start(1)
        assert oq.submit(len, "abc").result(timeout=60) == 3
        assert oq.sql("select state from tasks")["state"].tolist() == ["succeeded"]


class TlsDoor:
    """An encrypted door to a server that was built without TLS, as the one for tests is."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._loop = LoopThread()
        self.encrypted = 0

    def __enter__(self) -> "TlsDoor":
        self._server = self._loop.call(asyncio.start_server(self._let_in, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call(self._close())

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.loop.call_soon(self._loop.loop.stop)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(8)  # the request for TLS
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(
                self._pass_on(reader, inner_writer), self._pass_on(inner_reader, writer)
            )
        writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()


# ---------------------------------------------------------------- where it is


class TestPlaces:
    @pytest.mark.parametrize(
        "form",
        [
            "postgres://{user}:{secret}@127.0.0.1:{port}/postgres?schema={schema}",
            "postgresql+asyncpg://{user}:{secret}@localhost:{port}/postgres?schema={schema}",
            "postgresql://{user}@127.0.0.1/postgres?port={port}&password={secret}&schema={schema}",
            "postgresql://{user}:{secret}@127.0.0.1:{port}/postgres?sslmode=disable&schema={schema}",
            "postgresql://{user}:{secret}@127.0.0.1:1,127.0.0.1:{port}/postgres?schema={schema}",
            "postgresql:///postgres?host=127.0.0.1&port={port}&username={user}&password={secret}"
            "&schema={schema}",
        ],
    )
    def test_urls(self, server: Server, schema: str, form: str) -> None:
        secret = quote(PASSWORD, safe="")
        works(form.format(user=USER, secret=secret, port=server.port, schema=schema))

    def test_what_a_url_leaves_open_comes_from_the_environment(
        self, server: Server, schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGHOST", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(server.port))
        monkeypatch.setenv("PGDATABASE", "postgres")
        monkeypatch.setenv("PGUSER", USER)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        works(f"postgresql://?schema={schema}")

    async def test_services_and_password_files(
        self,
        server: Server,
        schema: str,
        role: str,
        admin: asyncpg.Connection,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await admin.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
        services, passwords = tmp_path / "services", tmp_path / "passwords"
        services.write_text(
            f"[lab]\nhost=127.0.0.1\nport={server.port}\ndbname=postgres\nuser={role}\n"
        )
        passwords.write_text(f"127.0.0.1:{server.port}:*:{role}:pw\n")
        passwords.chmod(0o600)
        monkeypatch.setenv("PGSERVICEFILE", str(services))
        monkeypatch.setenv("PGPASSFILE", str(passwords))
        await asyncio.to_thread(works, f"postgresql://?service=lab&schema={schema}")

    @pytest.mark.parametrize(
        ("options", "url"),
        [
            (PostgresOptions(), "postgresql://"),
            (PostgresOptions(host="h", port=1, database="d"), "postgresql://h:1/d"),
            (PostgresOptions(port=1), "postgresql://?port=1"),
            (PostgresOptions(host="::1", port=1), "postgresql://[::1]:1"),
            (PostgresOptions(host="/run/pg", port=1), "postgresql://%2Frun%2Fpg:1"),
            (PostgresOptions(username="a@b", database="c/d"), "postgresql://a%40b@/c%2Fd"),
            (PostgresOptions(service="lab"), "postgresql://?service=lab"),
            (
                PostgresOptions(host="a:1,b", port=2),
                "postgresql://a:1,b:2?target_session_attrs=read-write",
            ),
            (
                PostgresOptions(
                    sslmode="verify-full", sslrootcert="/ca", sslcert="/c", sslkey="/k"
                ),
                "postgresql://?sslmode=verify-full&sslrootcert=%2Fca&sslcert=%2Fc&sslkey=%2Fk",
            ),
        ],
    )
    def test_the_drivers_get_all_of_it(self, options: PostgresOptions, url: str) -> None:
        assert libpq_url(options) == url

    async def test_projects_share_a_database_by_schema(self, server: Server, schema: str) -> None:
        odd = f'{schema} "it\'s" \\ a; b'
        async with (
            queue_at(f"{server.url}?schema={schema}") as one,
            queue_at(f"{server.url}?schema={quote(odd)}") as other,
        ):
            await one.add([task("a")])
            assert await other.counts() == {}
            assert (await other.scan(Query())).table.num_rows == 0
            assert (await one.scan(Query())).table.num_rows == 1

    async def test_no_more_connections_than_allowed(self, server: Server, url: str) -> None:
        with Proxy(server.port) as proxy:
            url = url.replace(str(server.port), str(proxy.port))
            async with queue_at(f"{url}&max_connections=2") as queue:
                await asyncio.gather(*[queue.add([task(f"t{i}")]) for i in range(40)])
                assert await queue.counts() == {("default", State.QUEUED): 40}
            assert proxy.accepted == 2

    def test_of_several_servers_one_that_takes_writes_is_used(
        self, servers: Servers, server: Server, url: str
    ) -> None:
        """The first one takes none, as a standby does."""
        standby = servers.another("postgres")
        standby.settings = {**standby.settings, "default_transaction_read_only": "on"}
        with standby:
            works(url.replace("127.0.0.1:", f"127.0.0.1:{standby.port},127.0.0.1:"))

    def test_encrypted_and_the_certificate_is_checked(
        self, server: Server, url: str, tmp_path: Path
    ) -> None:
        """The driver, and the one that reads into Arrow."""
        for name in ("server", "another"):
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                    *("-subj", "/CN=omniq", "-addext", "subjectAltName=IP:127.0.0.1"),
                    *("-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"),
                ],
                check=True,
                capture_output=True,
            )
        with TlsDoor(server.port, tmp_path / "server.pem", tmp_path / "server.key") as door:
            url = url.replace(f":{server.port}/", f":{door.port}/") + "&sslmode=verify-full"
            works(f"{url}&sslrootcert={tmp_path}/server.pem")
            assert door.encrypted > 1
            with pytest.raises(StoreUnavailable, match=r"not trusted.*sslrootcert"):
                OmniQ(f"{url}&sslrootcert={tmp_path}/another.pem")

    def test_the_driver_may_be_missing(self) -> None:
        code = (
            "import sys; sys.modules['asyncpg'] = None\n"
            "from omniq_nb import OmniQ\n"
            "OmniQ('postgresql://h/d')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("omniq_nb.errors.StoreUnavailable: ")
        assert "pip install 'omniq_nb[postgres]'" in last


# ---------------------------------------------------------------- who may use it


class TestRights:
    async def test_the_grants_of_the_documentation_are_enough(
        self, server: Server, url: str, schema: str, role: str, admin: asyncpg.Connection
    ) -> None:
        page = (ROOT / "docs" / "backends.md").read_text()
        (grants,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
        async with queue_at(url):
            pass
        for name, here in (("omniq", schema), ("worker", role)):
            grants = re.sub(rf"\b{name}\b", here, grants)
        await admin.execute(grants)
        address = f"{role}:pw@127.0.0.1:{server.port}/postgres?schema={schema}"
        await asyncio.to_thread(works, f"postgresql://{address}")

    async def test_who_may_not_make_tables_is_told_what_to_do(
        self, server: Server, schema: str, role: str
    ) -> None:
        url = f"postgresql://{role}:pw@127.0.0.1:{server.port}/postgres?schema={schema}"
        with pytest.raises(StoreUnavailable, match="lacks a right") as raised:
            await stores_at(url).task_queue.open()
        assert schema in str(raised.value)
        assert "docs/backends.md" in str(raised.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ((f":{quote(PASSWORD, safe='')}@", ":hunter2hunter2@"), "Check user name and password"),
            (("/postgres?", "/nowhere?"), "'nowhere' at 127.0.0.1:{port} does not exist"),
            (("?", "?sslmode=require&"), "SSL"),
            (("?", "?sslmode=verify-full&sslrootcert=/no/such/file&"), "No such file"),
            ((":{port}/", ":1/"), "Check that the server runs"),
        ],
    )
    def test_errors_name_the_remedy_and_no_secret(
        self, server: Server, url: str, change: tuple[str, str], words: str
    ) -> None:
        old, new = (part.replace("{port}", str(server.port)) for part in change)
        assert old in url
        with pytest.raises(StoreUnavailable) as raised:
            OmniQ(url.replace(old, new))
        said = str(raised.value)
        assert words.replace("{port}", str(server.port)) in said
        assert said.startswith("PostgreSQL database '")
        error: BaseException | None = raised.value
        while error is not None:
            for secret in (PASSWORD, quote(PASSWORD, safe=""), "hunter2hunter2"):
                assert secret not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__


class TestVersions:
    async def test_tables_of_a_newer_omniq_nb_are_refused(
        self, url: str, schema: str, role: str, server: Server, admin: asyncpg.Connection
    ) -> None:
        async with queue_at(url):
            pass
        await admin.execute(
            f"UPDATE {schema}.omniq_schema SET version = 99; GRANT USAGE ON SCHEMA {schema} TO "
            f"{role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"
        )
        owner, guest = url, url.replace(server.url.partition("@")[0], f"postgresql://{role}:pw")
        for who in (owner, guest):
            with pytest.raises(StoreVersionError, match="pip install -U omniq_nb"):
                await stores_at(who).task_queue.open()

    async def test_tables_of_the_first_version_become_those_of_this_one(
        self, url: str, schema: str, admin: asyncpg.Connection
    ) -> None:
        async with admin.transaction():
            await admin.execute(f"CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}")
            await admin.execute("CREATE TABLE omniq_schema (version BIGINT NOT NULL)")
            await admin.execute("INSERT INTO omniq_schema VALUES (1)")
            for statement in MIGRATIONS[0]:
                await admin.execute(sql(statement))
            await admin.execute(
                "INSERT INTO omniq_calls VALUES (1, 'old', 'demo.work', NULL, 0, '{}', '[]', '{}',"
                " 0, NULL, NULL, '{}', '[]', NULL, '\\x00ff')"
            )
            await admin.execute(
                "INSERT INTO omniq_tasks (seq, queue, state, priority, available_at, token)"
                " VALUES (1, 'default', 'queued', 0, 0, 0)"
            )
        async with queue_at(url) as queue:
            await queue.put_bundle("a1", b"content")
            (old,) = await queue.claim(["default"], 10, LEASE, "w")
            assert (old.id, old.call, old.bundles) == ("old", b"\x00\xff", ())
            assert await queue.get_bundle("a1") == b"content"
        version = await admin.fetchval(f"SELECT version FROM {schema}.omniq_schema")
        assert version == VERSION

    async def test_tables_that_somebody_deleted_are_named(
        self, url: str, schema: str, admin: asyncpg.Connection
    ) -> None:
        async with queue_at(url) as queue:
            await admin.execute(f"DROP SCHEMA {schema} CASCADE")
            with pytest.raises(StoreError, match="Tables are missing") as raised:
                await queue.add([task("a")])
            assert schema in str(raised.value)


# ---------------------------------------------------------------- claims


@pytest.mark.parametrize("statement", [CLAIM, PICK, DUE_IN], ids=["CLAIM", "PICK", "DUE_IN"])
async def test_claims_walk_the_index(url: str, statement: str) -> None:
    """However many tasks there are, and though nobody told PostgreSQL how many."""
    async with queue_at(url) as queue:
        for priority in (0, 5):
            more = [task(f"t{priority}-{i}", priority=priority) for i in range(5_000)]
            await queue.add(more)
        connection = await connect(options_of(url))
        parameters = {
            CLAIM: ("default", 10, "me", LEASE),
            PICK: ("default", 5, NOON + 1, 10),
            DUE_IN: (["default"],),
        }[statement]
        text = f"EXPLAIN (ANALYZE, FORMAT JSON) {sql(statement)}"
        plan = json.loads(await connection.fetchval(text, *parameters))[0]["Plan"]
        await connection.close()
    scans = [
        node
        for node in nodes(plan)
        if node.get("Relation Name") == "omniq_tasks" and node["Node Type"] != "ModifyTable"
    ]
    assert "omniq_tasks_due" in {node["Index Name"] for node in scans}
    for node in scans:
        assert node["Node Type"] in ("Index Scan", "Index Only Scan"), node
        assert node["Actual Rows"] * node["Actual Loops"] <= 10, node
        assert node.get("Rows Removed by Filter", 0) == 0, node


@pytest.mark.parametrize("statement", [SETTLE, HELD, FENCE_OFF, GET])
async def test_a_plan_that_was_made_while_the_queue_was_empty_goes_by_key(
    url: str, statement: str
) -> None:
    async with queue_at(url) as queue:
        await queue.add([task("a")])
        connection = await connect(options_of(url))
        text = sql(statement)
        number = len((await connection.prepare(text)).get_parameters())
        await connection.execute(f"PREPARE made_early AS {text}")
        explain = f"EXPLAIN (FORMAT JSON) EXECUTE made_early({', '.join(['NULL'] * number)})"
        plan = json.loads(await connection.fetchval(explain))[0]["Plan"]
        await connection.close()
    used = {node["Index Name"]: node["Index Cond"] for node in nodes(plan) if "Index Name" in node}
    assert used.keys() <= {"omniq_tasks_pkey", "omniq_calls_id_key"}, used
    assert used["omniq_tasks_pkey"].startswith("(seq = ")
    assert not any(node["Node Type"] == "Seq Scan" for node in nodes(plan)), plan


def nodes(plan: dict) -> list[dict]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def test_a_due_task_that_somebody_locks_does_not_make_workers_spin(
    url: str, schema: str, admin: asyncpg.Connection
) -> None:
    async with queue_at(url) as queue:
        await queue.add([task("a")])
        async with admin.transaction():
            await admin.execute(f"SELECT 1 FROM {schema}.omniq_tasks FOR UPDATE")
            turns, ends_at = 0, time.monotonic() + 1
            while time.monotonic() < ends_at:
                assert await queue.claim(["default"], 1, LEASE, "me") == []
                await queue.wait(["default"], 60)
                turns += 1
            assert turns < 40
        assert len(await queue.claim(["default"], 1, LEASE, "me")) == 1


# ---------------------------------------------------------------- together


async def test_settling_and_results_are_one_transaction(
    url: str, schema: str, admin: asyncpg.Connection
) -> None:
    stores = stores_at(url)
    await stores.task_queue.open()
    await stores.result_storage.open()
    assert stores.task_queue.commits_with(stores.result_storage)
    await stores.task_queue.add([task("a")])
    (claimed,) = await stores.task_queue.claim(["default"], 1, LEASE, "me")
    outcome = Settle(id="a", token=claimed.token, to=State.SUCCEEDED)
    await admin.execute(f"ALTER TABLE {schema}.omniq_results ADD CHECK (task_id <> 'a')")
    with pytest.raises(StoreError, match="refused this, and wrote nothing"):
        await stores.task_queue.settle([outcome], [result("a", claimed.token)])
    (found,) = await stores.task_queue.get(["a"])
    assert found is not None
    assert found.state is State.RUNNING
    await stores.task_queue.close()
    await stores.result_storage.close()


def test_different_databases_do_not_commit_together(url: str) -> None:
    config = OmniQConfig(task_queue_backend=url, result_storage_backend=f"{url}2")
    stores = StorageBackendFactory.create_stores(config)
    assert not stores.task_queue.commits_with(stores.result_storage)


def test_whatever_a_task_prints_is_stored(url: str) -> None:
    def speak() -> str:
        print("nul \0 and half a pair \ud83e end")
        raise ValueError("nul \0 in words")

    with OmniQ(url) as oq:
        oq.workers.start(1)
        handle = oq.submit(speak)
        assert "nul" in str(handle.exception(timeout=60))
        assert "end" in handle.output()


# ---------------------------------------------------------------- waking up


class TestWakingUp:
    async def test_a_listener_that_was_cut_off_listens_again(
        self, url: str, admin: asyncpg.Connection, schema: str
    ) -> None:
        async with queue_at(url) as queue, queue_at(url) as other:
            waiting = asyncio.create_task(queue.wait(["default"], 60))
            (cut,) = await until(lambda: listeners(admin, schema), "it listens")
            await admin.execute("SELECT pg_terminate_backend($1)", cut)

            async def listens_again() -> bool:
                return await listeners(admin, schema) not in ([], [cut])

            await until(listens_again, "it listens again")
            assert not waiting.done()
            await other.add([task("a")])
            await asyncio.wait_for(waiting, 30)

    async def test_without_a_listener_it_looks_by_itself(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("omniq_nb.storage.sql.postgres_connections.Listener.start", lambda _: 0)
        async with queue_at(url) as queue, queue_at(url) as other:
            waiting = asyncio.create_task(queue.wait(["default"], 60))
            await asyncio.sleep(0.1)
            await other.add([task("a")])
            await asyncio.wait_for(waiting, 30)


async def listeners(admin: asyncpg.Connection, schema: str) -> list[int]:
    """Those who said LISTEN last, for the channel of a schema."""
    rows = await admin.fetch(
        "SELECT pid FROM pg_stat_activity WHERE query = $1", f'LISTEN "{channel(schema)}"'
    )
    return [row[0] for row in rows]


# ---------------------------------------------------------------- processes


def test_a_forked_child_and_its_parent_both_go_on(url: str) -> None:
    program = f"""
import asyncio, os
from tests.storage.test_postgres import stores_at
from omniq_nb.testing.proxy import Proxy
from omniq_nb.testing.samples import task

queue = stores_at({url!r}).task_queue

async def parent():
    await queue.open()
    await queue.add([task("a")])
    child = os.fork()
    if not child:
        return True
    assert await queue.add([task(f"parent-{{i}}") for i in range(20)]) == [True] * 20
    assert os.waitpid(child, 0)[1] == 0
    print(sum((await queue.counts()).values()))
    await queue.close()

async def child():
    assert await queue.add([task(f"child-{{i}}") for i in range(20)]) == [True] * 20

loop = asyncio.new_event_loop()
if loop.run_until_complete(parent()):
    status = 1
    try:
        asyncio.events._set_running_loop(None)
        asyncio.new_event_loop().run_until_complete(child())
        status = 0
    finally:
        os._exit(status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "41\n", done.stderr


async def test_another_event_loop_is_told_that_it_is_another_one(url: str) -> None:
    async with queue_at(url) as queue:
        with pytest.raises(StoreError, match="event loop"):
            await asyncio.to_thread(asyncio.run, queue.counts())
        assert await queue.counts() == {}


# ---------------------------------------------------------------- scans


class TestScans:
    async def test_times_and_equals_are_pushed_down(self, url: str) -> None:
        stores = stores_at(url)
        await stores.event_storage.open()
        events = [event(f"e{i}", NOON + i, task_id=f"t{i % 10}") for i in range(1_000)]
        await stores.event_storage.append(events)
        query = Query(since=NOON + 100, until=NOON + 200, equals={"task_id": ("t3", "it's \\")})
        found = (await stores.event_storage.scan(query)).table
        assert found.column("id").to_pylist() == [f"e{i}" for i in range(103, 200, 10)]
        await stores.event_storage.close()

    @pytest.mark.parametrize("many", [0, 100_000])
    async def test_an_event_that_came_with_two_times_is_one(
        self, url: str, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("omniq_nb.storage.tables.MANY", many)
        store = stores_at(url).event_storage
        await store.open()
        await store.append([event("a"), event("b"), event("a", NOON + 1)])
        found = (await store.scan(Query(columns=("id",)))).table
        assert sorted(found.column("id").to_pylist()) == ["a", "b"]
        await store.close()

    async def test_a_lost_connection_of_the_reader_is_made_again(
        self, url: str, admin: asyncpg.Connection
    ) -> None:
        async with queue_at(url) as queue:
            await queue.add([task("a")])
            assert (await queue.scan(Query())).table.num_rows == 1
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE $1",
                "%omniq_calls JOIN omniq_tasks%",
            )
            assert (await queue.scan(Query())).table.num_rows == 1
