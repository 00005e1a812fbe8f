"""What NATS adds to the suites: where it is, who may use it, breaks of all kinds, wake-ups."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import nkeys
import pytest

from omniq_nb import OmniQ
from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.config.options import NatsOptions
from omniq_nb.errors import ConfigError, StoreError, StoreUnavailable, StoreVersionError
from omniq_nb.models.task import Claim, Settle, State
from omniq_nb.storage.base import Query, Stores, TaskQueue
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.storage.journal import replica
from omniq_nb.storage.nats import frames
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.place import NatsPlace
from omniq_nb.storage.nats.words import Lost
from omniq_nb.testing.places import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.proxy import Proxy
from omniq_nb.testing.samples import NEVER, NOON, event, result, schedule, task
from omniq_nb.testing.servers import Server, Servers
from omniq_nb.testing.servers.base import free_port
from omniq_nb.testing.servers.nats import NatsServer
from omniq_nb.testing.suite import until

ROOT = Path(__file__).parent.parent.parent
LEASE = 60.0
SECRET = "hunter2hunter2"


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers("nats")


@pytest.fixture
def own(servers: Servers) -> NatsServer:
    """A server for this test alone, not started."""
    server = servers.another("nats")
    assert isinstance(server, NatsServer)
    return server


@pytest.fixture
def stream() -> str:
    return f"t{uuid4().hex}"


@pytest.fixture
def url(server: Server, stream: str) -> str:
    return f"{server.url}?stream={stream}"


def stores_at(url: str) -> Stores:
    return StorageBackendFactory.create_stores(OmniQConfig(task_queue_backend=url))


def recipe(url: str) -> Recipe:
    options = StorageBackendConfig.from_url(url).options()
    assert isinstance(options, NatsOptions)
    return Recipe("omniq_nb.storage.nats:NatsPlace", (None, options))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Stores]:
    stores = stores_at(url)
    each = [getattr(stores, name) for name in stores.__struct_fields__]
    try:
        for store in each:
            await store.open()
        yield stores
    finally:
        for store in each:
            await store.close()


@asynccontextmanager
async def admin(server: Server, **who: Any) -> AsyncIterator[Any]:
    """JetStream, by the driver alone."""
    connection = await nats.connect(server.url, **who)
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


async def all_work(stores: Stores) -> None:
    """Each store stores, reads and deletes, small things and big ones."""
    big = bytes(100_000)
    name = uuid4().hex
    queue, results = stores.task_queue, stores.result_storage
    assert await queue.add([task(name, call=big), task(f"{name}2")]) == [True, True]
    first, second = await queue.claim(["default"], 2, LEASE, "me")
    assert first.call == big
    outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in (first, second)]
    stored = result(name, first.token, payload=big)
    await results.put([stored])
    assert await queue.settle(outcomes) == [True, True]
    assert await results.get([Claim(name, first.token)]) == [stored]
    await stores.event_storage.append([event(name, NOON)])
    assert (await stores.event_storage.scan(Query())).table.num_rows == 1
    assert await stores.schedule_storage.put(schedule(name), 0)
    assert await results.purge(NOON, NOON * 2) == 1
    assert await stores.event_storage.purge(NOON * 2) == 1
    assert await stores.schedule_storage.remove(name)


def refusal(url: str) -> str:
    """What a user reads who cannot connect. Nothing in it, or behind it, is secret."""
    with pytest.raises(StoreUnavailable) as raised:
        OmniQ(url)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    return str(raised.value)


# ---------------------------------------------------------------- where it is


class TestPlaces:
    async def test_projects_share_a_server_by_prefix(self, server: Server, stream: str) -> None:
        async with (
            opened(f"{server.url}?stream={stream}") as one,
            opened(f"{server.url}?stream={stream}-2") as other,
        ):
            await one.task_queue.add([task("a")])
            await one.event_storage.append([event("a")])
            assert await other.task_queue.counts() == {}
            assert (await other.event_storage.scan(Query())).table.num_rows == 0
            assert (await one.event_storage.scan(Query())).table.num_rows == 1

    def test_a_prefix_is_a_word(self) -> None:
        with pytest.raises(ConfigError, match=r"stream: got 'a\.b'.*letters, digits, - and _"):
            OmniQ("nats://host?stream=a.b")

    async def test_any_of_several_servers_will_do(self, server: Server, stream: str) -> None:
        several = f"nats://127.0.0.1:{free_port()},127.0.0.1:{server.port}?stream={stream}"
        async with opened(several) as stores:
            await all_work(stores)

    async def test_another_server_takes_over(self, server: Server, stream: str) -> None:
        """Both proxies lead to one server, as members of a cluster lead to one stream."""
        with Proxy(server.port) as first, Proxy(server.port) as second:
            servers = f"nats://127.0.0.1:{first.port},127.0.0.1:{second.port}?stream={stream}"
            async with opened(servers) as stores:
                assert await stores.task_queue.add([task("a")]) == [True]
                assert (first.accepted, second.accepted) == (1, 0)
                first.refuses = True
                first.drop()
                assert await stores.task_queue.add([task("b")]) == [True]
                assert second.accepted == 1

    def test_the_four_components_share_a_connection(self, server: Server, stream: str) -> None:
        with (
            Proxy(server.port) as proxy,
            OmniQ(f"nats://127.0.0.1:{proxy.port}?stream={stream}") as oq,
        ):
            oq.workers.start(2)
            assert oq.submit(len, "abc").result(timeout=60) == 3
            found = oq.sql("select t.state from tasks t join results r using (task_id)")
            assert found["state"].tolist() == ["succeeded"]
            assert proxy.accepted == 1


# ---------------------------------------------------------------- who may use it


USERS = f"""{{
  users: [
    {{ user: admin, password: {SECRET} }}
    {{ user: worker, password: {SECRET}, permissions: {{
      publish: [PERMISSIONS]
      subscribe: ["_INBOX.>"]
    }} }}
  ]
}}"""


OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
ACCOUNT, USER = nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER


class Signer:
    """A key pair that vouches for others, as `nsc` makes them."""

    def __init__(self, prefix: int) -> None:
        seed = nkeys.encode_seed(os.urandom(32), prefix)
        self._key = nkeys.from_seed(bytearray(seed))
        self.seed = bytes(seed).decode()
        self.name = self._key.public_key.decode()

    def token(self, subject: "Signer", type: str, **claims: object) -> str:
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": uuid4().hex,
            "iat": int(time.time()),
            "iss": self.name,
            "sub": subject.name,
            "nats": {"type": type, "version": 2, **claims},
        }
        signed = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(body).encode())}"
        return f"{signed}.{_base64(self._key.sign(signed.encode()))}"


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class TestRights:
    async def test_the_permissions_of_the_documentation_are_enough(self, own: NatsServer) -> None:
        page = (ROOT / "docs" / "backends.md").read_text()
        permissions = page.partition("publish: [")[2].partition("]")[0]
        own.settings["authorization"] = USERS.replace("PERMISSIONS", permissions)
        with own:
            worker = own.url.replace("://", f"://worker:{SECRET}@")
            said = await asyncio.to_thread(refusal, worker)
            assert "does not permit this user to publish to '$JS.API.STREAM.CREATE.omniq-" in said
            assert "docs/backends.md" in said
            async with opened(worker.replace("worker", "admin")):
                pass
            async with opened(worker) as stores:
                await all_work(stores)

    @pytest.mark.parametrize(
        ("settings", "user"),
        [
            (f"{{ user: u, password: {SECRET}x }}", f"u:{SECRET}"),
            (f"{{ token: {SECRET}x }}", SECRET),
        ],
    )
    def test_a_wrong_secret_is_not_shown(self, own: NatsServer, settings: str, user: str) -> None:
        own.settings["authorization"] = settings
        with own:
            said = refusal(own.url.replace("://", f"://{user}@"))
        assert "does not let this user in" in said
        assert "Check user and password, token or creds_file" in said

    @pytest.mark.parametrize(
        ("settings", "user"),
        [
            (f"{{ user: u, password: {SECRET} }}", f"u:{SECRET}"),
            (f"{{ token: {SECRET} }}", SECRET),
        ],
    )
    async def test_users_and_tokens(self, own: NatsServer, settings: str, user: str) -> None:
        own.settings["authorization"] = settings
        with own:
            async with opened(own.url.replace("://", f"://{user}@")) as stores:
                await all_work(stores)

    async def test_a_credentials_file(self, own: NatsServer, tmp_path: Path) -> None:
        """Operator, account and user are keys; tokens say who trusts whom."""
        operator, system, account, user = map(Signer, (OPERATOR, ACCOUNT, ACCOUNT, USER))
        free = dict.fromkeys(("subs", "conn", "data", "payload", "imports", "exports"), -1)
        stores_too = free | dict.fromkeys(
            ("mem_storage", "disk_storage", "streams", "consumer"), -1
        )
        trust = operator.token(operator, "operator")
        tokens = {
            system.name: operator.token(system, "account", limits=free),
            account.name: operator.token(account, "account", limits=stores_too),
        }
        own.settings |= {
            "operator": trust,
            "system_account": system.name,
            "resolver": "MEMORY",
            "resolver_preload": json.dumps(tokens),
        }
        file = tmp_path / "lab.creds"
        file.write_text(
            "-----BEGIN NATS USER JWT-----\n"
            f"{account.token(user, 'user', subs=-1, data=-1, payload=-1)}\n"
            "------END NATS USER JWT------\n\n"
            "-----BEGIN USER NKEY SEED-----\n"
            f"{user.seed}\n"
            "------END USER NKEY SEED------\n"
        )
        with own:
            async with opened(f"{own.url}?creds_file={file}") as stores:
                await all_work(stores)
            said = await asyncio.to_thread(refusal, own.url)
            assert "creds_file" in said

    def test_a_credentials_file_that_is_not_there(self, server: Server) -> None:
        said = refusal(f"{server.url}?creds_file=/no/such/file")
        assert "creds_file" in said
        assert "/no/such/file" in said


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        """A key and a certificate of 127.0.0.1 that vouches for itself."""
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=omniq", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", "key", "-out", "cert"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        return tmp_path

    @pytest.fixture
    def encrypted(self, own: NatsServer, certificate: Path) -> Iterator[NatsServer]:
        files = f'cert_file: "{certificate}/cert", key_file: "{certificate}/key"'
        own.settings["tls"] = f"{{ {files} }}"
        with own:
            yield own

    @pytest.mark.parametrize("scheme", ["tls", "nats"])
    async def test_encrypted_as_the_server_asks(
        self,
        encrypted: NatsServer,
        certificate: Path,
        scheme: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
        async with opened(encrypted.url.replace("nats", scheme)) as stores:
            await all_work(stores)

    def test_a_certificate_of_nobody_known_is_refused(self, encrypted: NatsServer) -> None:
        said = refusal(encrypted.url.replace("nats", "tls"))
        assert "no encrypted connection" in said
        assert "SSL_CERT_FILE" in said

    def test_no_secret_goes_to_a_server_without_encryption(self, own: NatsServer) -> None:
        own.settings |= {"authorization": f"{{ user: u, password: {SECRET} }}", "trace": "true"}
        with own:
            said = refusal(f"tls://u:{SECRET}@127.0.0.1:{own.port}")
            assert "does not offer TLS" in said
            assert "CONNECT" not in own.log()


class TestVersions:
    async def test_a_newer_layout_is_refused(self, server: Server, stream: str, url: str) -> None:
        async with opened(url):
            pass
        async with admin(server) as js:
            config = (await js.stream_info(f"{stream}-events")).config
            config.metadata["omniq_nb"] = "99"
            await js.update_stream(config)
        with pytest.raises(StoreVersionError, match=f"{stream}-events.* 99 .*Upgrade omniq_nb"):
            await stores_at(url).event_storage.open()

    async def test_a_stream_of_somebody_else_is_refused(
        self, server: Server, stream: str, url: str
    ) -> None:
        async with admin(server) as js:
            await js.add_stream(name=f"{stream}-queue", subjects=[f"{stream}.queue"])
        with pytest.raises(StoreUnavailable, match=r"not one of omniq_nb.*another prefix"):
            await stores_at(url).task_queue.open()

    async def test_a_deleted_stream_is_named(self, server: Server, stream: str, url: str) -> None:
        async with opened(url) as stores:
            async with admin(server) as js:
                await js.delete_stream(f"{stream}-queue")
            with pytest.raises(StoreUnavailable, match=f"prefix '{stream}' is missing.*connect"):
                await stores.task_queue.add([task("a")])

    async def test_a_message_of_somebody_else_does_no_harm(
        self, server: Server, stream: str, url: str
    ) -> None:
        async with opened(url) as stores, admin(server) as js:
            await stores.task_queue.add([task("a")])
            for strange in (b"", b"hi", b"a longer message", bytes(100)):
                await js.publish(f"{stream}.queue", strange)
            await stores.task_queue.add([task("b")])
            async with opened(url) as others:
                assert await others.task_queue.counts() == {("default", State.QUEUED): 2}

    async def test_a_log_with_a_hole_is_refused(
        self, server: Server, stream: str, url: str
    ) -> None:
        async with opened(url) as stores, admin(server) as js:
            for number in range(3):
                await stores.task_queue.add([task(str(number))])
            await js.delete_msg(f"{stream}-queue", 2)
            with pytest.raises(StoreError, match="lacks messages in its midst"):
                await stores_at(url).task_queue.open()


class TestServers:
    def test_a_server_that_is_not_there(self) -> None:
        port = free_port()
        said = refusal(f"nats://u:{SECRET}@127.0.0.1:{port}")
        assert said.startswith(f"NATS at nats://127.0.0.1:{port} cannot be reached")
        assert "Check that the server runs" in said

    def test_a_server_that_stores_nothing(self, own: NatsServer) -> None:
        own.settings = {}
        with own:
            said = refusal(own.url)
        assert said.startswith("JetStream is not enabled")
        assert "nats-server -js" in said

    def test_a_server_that_is_too_old(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("omniq_nb.storage.nats.connection.VERSION", (99, 1))
        said = refusal(server.url)
        assert "needs 2.12 or later" in said
        assert "Upgrade the server" in said

    def test_the_driver_may_be_missing(self) -> None:
        code = (
            "import sys; sys.modules['nats'] = None\nfrom omniq_nb import OmniQ\nOmniQ('nats://h')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("omniq_nb.errors.StoreUnavailable: ")
        assert "pip install 'omniq_nb[nats]'" in last

    async def test_a_full_disk_takes_nothing_and_says_so(self, own: NatsServer) -> None:
        own.settings["jetstream"] = "{ max_file: 2M, sync_interval: always }"
        with own:
            async with opened(own.url) as stores:
                added = 0
                with pytest.raises(StoreError, match=r"has no room.*It took nothing of this"):
                    while added < 1_000:
                        await stores.task_queue.add([task(str(added), call=bytes(4_000))])
                        added += 1
                assert await stores.task_queue.counts() == {("default", State.QUEUED): added}

    async def test_what_it_promises(self, url: str) -> None:
        async with opened(url):
            place = NatsPlace(*recipe(url).arguments)  # type: ignore[arg-type]
            promises = await place.promises()
        assert set(promises) == {"durability", "sharing", "exclusion"}
        assert "sync_interval" in promises["durability"]


# ---------------------------------------------------------------- breaks


class TestBreaks:
    @pytest.fixture
    def proxy(self, server: Server) -> Iterator[Proxy]:
        with Proxy(server.port) as proxy:
            yield proxy

    @pytest.fixture
    def through(self, proxy: Proxy, stream: str) -> str:
        return f"nats://127.0.0.1:{proxy.port}?stream={stream}"

    @pytest.mark.parametrize("fault", ["drop", "halve"])
    async def test_whatever_breaks_each_write_counts_once(
        self, proxy: Proxy, through: str, url: str, fault: str
    ) -> None:
        """A write whose answer was lost is known again: its caller is told that he was first."""
        chance = random.Random(5)

        async def break_it() -> None:
            accepted = 0
            while True:
                await connected(proxy, accepted)
                accepted = proxy.accepted
                await asyncio.sleep(chance.uniform(0, 0.1))
                getattr(proxy, fault)()

        async with opened(through) as stores:
            queue, results, events = (
                stores.task_queue,
                stores.result_storage,
                stores.event_storage,
            )
            breaking = asyncio.create_task(break_it())
            for number in range(30):
                name = f"t{number}"
                assert await queue.add([task(name)]) == [True]
                (claimed,) = await queue.claim(["default"], 1, LEASE, "me")
                assert (claimed.id, claimed.attempt) == (name, 1)
                await results.put([result(name, claimed.token)])
                outcome = Settle(id=name, token=claimed.token, to=State.SUCCEEDED)
                assert await queue.settle([outcome]) == [True]
                await events.append([event(name)])
                assert await stores.schedule_storage.put(schedule(name), 0)
            breaking.cancel()
            await asyncio.wait([breaking])
        assert proxy.accepted > 2
        async with opened(url) as stores:
            assert await stores.task_queue.counts() == {("default", State.SUCCEEDED): 30}
            assert (await stores.result_storage.scan(Query())).table.num_rows == 30
            assert (await stores.event_storage.scan(Query())).table.num_rows == 30
            assert len(await stores.schedule_storage.list()) == 30

    async def test_a_silent_server_is_given_up(self, proxy: Proxy, through: str) -> None:
        async with opened(f"{through}&timeout=0.5") as stores:
            proxy.silent = True
            with pytest.raises(StoreUnavailable, match=r"cannot be reached: no answer in time"):
                await asyncio.wait_for(stores.task_queue.counts(), 30)
            proxy.silent = False
            proxy.drop()
            assert await stores.task_queue.add([task("a")]) == [True]

    async def test_a_slow_network_only_takes_longer(self, proxy: Proxy, through: str) -> None:
        proxy.delay = 0.02
        async with opened(through) as stores:
            await all_work(stores)

    async def test_who_waits_hears_of_work_after_a_break(
        self, proxy: Proxy, through: str, url: str
    ) -> None:
        async with opened(through) as stores, opened(url) as others:
            waiting = asyncio.create_task(stores.task_queue.wait(["default"], 600))
            await asyncio.sleep(0.1)
            accepted = proxy.accepted
            proxy.drop()
            await connected(proxy, accepted)
            assert not waiting.done()
            await others.task_queue.add([task("a")])
            await asyncio.wait_for(waiting, 60)

    async def test_a_server_that_comes_back_lost_nothing(
        self, own: NatsServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with own:
            async with opened(own.url) as stores:
                added = 0
                for _ in range(3):
                    for _ in range(20):
                        assert await stores.task_queue.add([task(str(added))]) == [True]
                        added += 1
                    own.restart()
                assert await stores.task_queue.counts() == {("default", State.QUEUED): added}
        said = [each.message for each in caplog.records if "omniq_nb" in each.name]
        assert sum("was lost; connecting again" in line for line in said) == 3
        assert sum("Connected to" in line for line in said) == 3

    async def test_a_server_that_lost_its_newest_writes(self, own: NatsServer) -> None:
        """As after a power cut with a long `sync_interval`: then its word counts, not ours."""
        streams, earlier = own.folder / "streams", own.folder / "earlier"
        with own:
            async with opened(own.url) as stores:
                await stores.task_queue.add([task("a")])
                await stores.result_storage.put([result("a", 1)])
                own.stop()
                shutil.copytree(streams, earlier)
                own.start()
                await stores.task_queue.add([task("b")])
                await stores.result_storage.put([result("b", 1)])
                assert await stores.result_storage.get([Claim("b", 1)]) == [result("b", 1)]
                own.stop()
                shutil.rmtree(streams)
                earlier.rename(streams)
                own.start()
                assert await stores.task_queue.get(["b"]) == [None]
                assert await stores.result_storage.get([Claim("b", 1)]) == [None]
                assert await stores.task_queue.add([task("c"), task("a")]) == [True, False]
                await stores.result_storage.put([result("c", 1)])
                assert await stores.result_storage.get([Claim("c", 1)]) == [result("c", 1)]
                async with opened(own.url) as others:
                    counts = await others.task_queue.counts()
                    assert counts == {("default", State.QUEUED): 2}

    @pytest.mark.heavy
    async def test_workers_and_the_server_are_killed(self, own: NatsServer) -> None:
        """Nothing is lost, nothing settled twice, nothing left over."""
        chance = random.Random(3)
        with own:
            url = own.url
            async with opened(url) as stores:
                queue = stores.task_queue
                for first in range(0, 2_000, 500):
                    assert all(await queue.add([task(str(first + i)) for i in range(500)]))
                with ExitStack() as stack:

                    def start() -> Process:
                        worker = stack.enter_context(Process(recipe(url), "task_queue"))
                        worker.start(drain_shortly, uuid4().hex)
                        return worker

                    workers = [start() for _ in range(3)]
                    for turn in range(6):
                        left = 2_000 - 300 * (turn + 1)
                        await until(partial(queued_at_most, queue, left), "workers work")
                        place = chance.randrange(len(workers))
                        workers[place].kill()
                        if turn == 3:
                            own.restart()
                        workers[place] = start()
                    settled = sum(worker.answer() for worker in workers)
                assert 0 < settled <= 2_000
                assert await queue.counts() == {("default", State.SUCCEEDED): 2_000}


async def drain_shortly(queue: TaskQueue, worker: str) -> int:
    """As `drain`, with leases so short that what a killed worker held comes back."""
    settled = 0
    while True:
        tasks = await queue.claim(["default"], 5, 1.0, worker)
        outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in tasks]
        settled += sum(await queue.settle(outcomes))
        if not tasks:
            if {state for _, state in await queue.counts()} == {State.SUCCEEDED}:
                return settled
            await asyncio.sleep(0.05)


async def queued_at_most(queue: TaskQueue, number: int) -> bool:
    return (await queue.counts()).get(("default", State.QUEUED), 0) <= number


async def connected(proxy: Proxy, before: int) -> None:
    """Wait until a connection was made beyond those `before`."""

    async def more() -> bool:
        return proxy.accepted > before

    await until(more, "there is a new connection")


# ---------------------------------------------------------------- waking up, sizes, trimming


async def test_who_waits_is_woken_by_another_process(url: str) -> None:
    async with opened(url) as stores:
        with Process(recipe(url), "task_queue") as other:
            for number in range(5):
                waiting = asyncio.create_task(stores.task_queue.wait(["default"], 600))
                await asyncio.sleep(0.05)
                assert not waiting.done()
                other.start("add", [task(str(number))])
                await asyncio.wait_for(waiting, 60)
                other.answer()
                assert len(await stores.task_queue.claim(["default"], 1, LEASE, "me")) == 1


async def test_who_waits_claims_in_the_very_entry_that_adds(
    server: Server, stream: str, url: str
) -> None:
    async with opened(url) as stores, admin(server) as js:
        queue = stores.task_queue

        async def claimed() -> list[str]:
            await queue.wait(["other", "default"], 600)
            return [held.id for held in await queue.claim(["default"], 5, LEASE, "me")]

        async def stored() -> int:
            number: int = (await js.stream_info(f"{stream}-queue")).state.messages
            return number

        for name in ("a", "b"):
            claiming = asyncio.create_task(claimed())
            await asyncio.sleep(0.1)
            before = await stored()
            assert await queue.add([task(name), task(f"late {name}", available_at=NEVER)])
            assert await asyncio.wait_for(claiming, 60) == [name]
            assert await stored() == before + 1


async def test_payloads_far_larger_than_a_message(own: NatsServer) -> None:
    own.settings["max_payload"] = "64KB"
    big = os.urandom(20 * 1024 * 1024)
    with own:
        async with opened(own.url) as stores:
            await stores.task_queue.add([task("a", call=big), task("b", call=big[:5_000])])
            claimed = await stores.task_queue.claim(["default"], 2, LEASE, "me")
            assert [each.call for each in claimed] == [big, big[:5_000]]
            await stores.result_storage.put([result("a", 1, payload=big)])
            assert await stores.result_storage.get([Claim("a", 1)]) == [result("a", 1, payload=big)]


async def test_a_log_is_trimmed_and_laggards_catch_up(
    server: Server, stream: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "CHECKPOINT_ENTRIES", 10)
    async with opened(url) as stores, opened(url) as laggard, admin(server) as js:
        for number in range(100):
            await stores.task_queue.add([task(str(number))])
            if not number % 7:  # larger than a message: numbers of entries and messages differ
                await stores.task_queue.add([task(f"{number}+{i:0500}") for i in range(3_000)])
        info = await js.stream_info(f"{stream}-queue")
        assert info.state.first_seq > 10
        beside = await js.stream_info(f"{stream}-objects", subjects_filter=">")
        assert beside.state.subjects[f"{stream}.objects.queue.checkpoint"] == 2
        count = {("default", State.QUEUED): 100 + 15 * 3_000}
        assert await laggard.task_queue.counts() == count
        assert await laggard.task_queue.add([task("last")]) == [True]
        assert await stores.task_queue.add([task("last")]) == [False]


async def test_deleted_results_leave_nothing_behind(server: Server, stream: str, url: str) -> None:
    async with opened(url) as stores, admin(server) as js:
        big = bytes(200_000)
        for number in range(5):
            await stores.result_storage.put([result(str(number), 1, payload=big)])
            await stores.event_storage.append([event(str(number))])
        await stores.result_storage.purge(0.0, NOON * 2)
        await stores.event_storage.purge(NOON * 2)
        for what, left in (("results", 1), ("events", 1), ("objects", 0)):
            info = await js.stream_info(f"{stream}-{what}")
            assert info.state.messages == left  # what says that nothing is left to do


async def test_a_reader_that_missed_deletions_forgets_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is purged and submitted again has the same ids, and its tokens begin anew."""
    monkeypatch.setattr("omniq_nb.storage.nats.results.UNUSED", -1.0)
    async with opened(url) as stores, opened(url) as reader:
        await stores.result_storage.put([result("a", 5)])
        assert await reader.result_storage.get([Claim("a", 5)]) == [result("a", 5)]
        await stores.result_storage.put([result("b", 1)])  # the reader ceases to listen
        for _ in range(3):
            await stores.result_storage.purge(0.0, NOON * 2)
            await stores.result_storage.put([result("a", 1)])
        assert await reader.result_storage.get([Claim("a", 1)]) == [result("a", 1)]


async def test_a_result_that_was_stored_twice_keeps_its_payload(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = frames.publish
    numbers: list[int] = []
    big = bytes(200_000)

    async def publish_in_doubt(connection: Connection, messages: Any) -> int:
        numbers.append(await publish(connection, messages))
        if len(numbers) == 1:
            raise Lost("no answer")
        return numbers[-1]

    async with opened(url) as stores:
        monkeypatch.setattr(frames, "publish", publish_in_doubt)
        await stores.result_storage.put([result("a", 1, payload=big)])
        assert len(numbers) == 2
        for _ in range(2):
            await stores.result_storage.purge(0.0)
            assert await stores.result_storage.get([Claim("a", 1)]) == [result("a", 1, payload=big)]


class TestScans:
    async def test_the_time_range_is_pushed_down(self, url: str) -> None:
        async with opened(url) as stores:
            start = time.time() - 3_600
            old = [event(f"old{i}", start + i) for i in range(100)]
            await stores.event_storage.append(old)
            new = [event(f"new{i}", time.time()) for i in range(10)]
            await stores.event_storage.append(new)
            found = await stores.event_storage.scan(Query(since=start + 50))
            assert found.table.num_rows >= 60
            found = await stores.event_storage.scan(Query(since=time.time() + 600))
            assert found.table.num_rows == 0
            found = await stores.event_storage.scan(Query(until=start))
            assert found.table.num_rows == 0


# ---------------------------------------------------------------- processes


def test_a_forked_child_and_its_parent_both_go_on(url: str) -> None:
    program = f"""
import asyncio, os
from tests.storage.test_nats import stores_at
from omniq_nb.models.task import Claim
from omniq_nb.testing.samples import result, task

stores = stores_at({url!r})
queue, results = stores.task_queue, stores.result_storage

async def parent():
    await queue.open()
    await results.open()
    await queue.add([task("a")])
    await results.put([result("a", 1)])
    assert await results.get([Claim("a", 1)]) == [result("a", 1)]
    child = os.fork()
    if not child:
        return True
    assert await queue.add([task(f"parent-{{i}}") for i in range(20)]) == [True] * 20
    assert os.waitpid(child, 0)[1] == 0
    print(sum((await queue.counts()).values()))
    assert await results.get([Claim("b", 1)]) == [result("b", 1)]
    await results.close()
    await queue.close()

async def child():
    assert await queue.add([task(f"child-{{i}}") for i in range(20)]) == [True] * 20
    assert await results.get([Claim("a", 1)]) == [result("a", 1)]
    await results.put([result("b", 1)])

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
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "41\n", done.stderr


async def test_another_event_loop_has_a_connection_of_its_own(url: str) -> None:
    async with opened(url) as stores:
        await stores.task_queue.add([task("a")])
        for _ in range(2):
            counts = await asyncio.to_thread(asyncio.run, stores.task_queue.counts())
            assert counts == {("default", State.QUEUED): 1}
            assert await stores.task_queue.counts() == counts
