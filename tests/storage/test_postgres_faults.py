"""PostgreSQL in trouble: cut connections, restarts, a full disk. Nothing is lost or done twice."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from omniq_nb import OmniQ
from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.models.task import Settle, State
from omniq_nb.testing.proxy import Proxy
from omniq_nb.testing.samples import schedule, task
from omniq_nb.testing.servers import Server, Servers
from omniq_nb.testing.servers.base import free_port
from omniq_nb.testing.suite import until
from tests.storage.test_postgres import queue_at, stores_at

ROOT = Path(__file__).parent.parent.parent
LEASE = 30.0


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    with Proxy(servers("postgres").port) as proxy:
        yield proxy


@pytest.fixture
def url(servers: Servers, proxy: Proxy) -> str:
    """A schema of its own, through the proxy."""
    server = servers("postgres")
    return through(proxy, server, f"{server.url}?schema=t{uuid4().hex}")


def through(proxy: Proxy, server: Server, url: str) -> str:
    return url.replace(f":{server.port}/", f":{proxy.port}/")


def square(i: int) -> int:
    return i * i


def check(oq: OmniQ, number: int) -> None:
    """Each of so many tasks succeeded once, and its result is there once."""
    assert oq.sql("select state from tasks")["state"].tolist() == ["succeeded"] * number
    results = oq.sql("select task_id, value, state from results")
    assert len(results) == results["task_id"].nunique() == number
    assert sorted(int(value) for value in results["value"]) == [i * i for i in range(number)]
    ends = oq.sql("select task_id from events where type = 'succeeded'")
    assert ends["task_id"].is_unique


# ---------------------------------------------------------------- cut connections


def test_connections_are_cut_again_and_again_while_workers_drain(
    proxy: Proxy, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with OmniQ(url) as oq:
        batch, dice = oq.map(square, range(6_000)), random.Random(7)
        oq.workers.start(2)
        for _ in range(12):
            dice.choice([proxy.drop, proxy.halve])()
            time.sleep(dice.uniform(0, 0.3))
        batch.wait(timeout=100)
        check(oq, 6_000)
    assert {record.name for record in caplog.records} <= {"omniq_nb.postgres", "omniq_nb.worker"}


def test_a_slow_network_only_slows_down(proxy: Proxy, url: str) -> None:
    proxy.delay = 0.01
    works(url, 50)


def works(url: str, number: int) -> None:
    with OmniQ(url) as oq:
        batch = oq.map(square, range(number))
        oq.workers.start(1)
        assert batch.results(timeout=100) == [i * i for i in range(number)]


async def test_a_server_that_is_gone_for_a_while_costs_nothing_but_time(
    proxy: Proxy, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with queue_at(url) as queue:
        await queue.add([task("a")])
        proxy.refuses = True
        proxy.drop()
        adding = [asyncio.create_task(queue.add([task(f"t{i}")])) for i in range(5)]
        await until(lambda: said(caplog, "cannot be reached"), "it says so")
        proxy.refuses = False
        assert await asyncio.gather(*adding) == [[True]] * 5
        assert len(await queue.claim(["default"], 9, LEASE, "me")) == 6
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2, "one line when it goes, one when it comes back"
    assert lines[0].startswith("PostgreSQL database 'postgres' at 127.0.0.1")
    assert lines[1].endswith("answers again")


async def said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in record.message for record in caplog.records)


async def test_a_server_that_stays_away_is_an_error_when_the_time_is_over(
    proxy: Proxy, url: str
) -> None:
    async with queue_at(f"{url}&timeout=0.5") as queue:
        proxy.refuses = True
        proxy.drop()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await queue.add([task("a")])
        proxy.refuses = False
        assert await queue.add([task("a")]) == [True]


async def test_a_server_that_is_silent_is_an_error_when_the_time_is_over(
    proxy: Proxy, url: str
) -> None:
    async with queue_at(f"{url}&timeout=0.5") as queue:
        proxy.silent = True
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            await queue.add([task("a")])
        proxy.silent = False
        proxy.drop()
        await queue.add([task("a")])
        assert await queue.counts() == {("default", State.QUEUED): 1}


def test_a_server_that_is_absent_at_the_start_is_an_error_at_once(proxy: Proxy, url: str) -> None:
    proxy.refuses = True
    with pytest.raises(StoreUnavailable, match="Check that the server runs"):
        OmniQ(url)


# ---------------------------------------------------------------- lost answers

Execute = Callable[..., Coroutine[Any, Any, Any]]


class Loses:
    """Cuts the connection at the first statement with certain words, before or after it is done."""

    def __init__(self, words: str, done: bool, patch: pytest.MonkeyPatch) -> None:
        self.words, self.done, self.times = words, done, 0
        for method in ("execute", "fetch"):
            original = getattr(asyncpg.Connection, method)
            patch.setattr(asyncpg.Connection, method, self._losing(original))

    def _losing(self, original: Execute) -> Execute:
        async def method(connection: asyncpg.Connection, query: str, *args: object) -> Any:
            if self.words not in query or self.times:
                return await original(connection, query, *args)
            self.times += 1
            if self.done:
                await original(connection, query, *args)
            connection.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")

        return method


both = pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])


@both
@pytest.mark.parametrize("number", [3, 300], ids=["few", "many"])
async def test_adding_whose_answer_was_lost(
    url: str, done: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [task(f"t{i}") for i in range(number)]
    async with queue_at(url) as queue:
        await queue.add([task("t0", call=b"another one")])
        loses = Loses("INSERT INTO omniq_calls" if number < 16 else "COMMIT", done, monkeypatch)
        assert await queue.add(tasks) == [False] + [True] * (number - 1)
        assert loses.times == 1
        assert len(await queue.claim(["default"], number + 9, LEASE, "me")) == number


@both
async def test_settling_whose_answer_was_lost(
    url: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_at(url) as queue:
        await queue.add([task("a"), task("b")])
        claimed = await queue.claim(["default"], 2, LEASE, "me")
        loses = Loses("COMMIT", done, monkeypatch)
        outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in claimed]
        assert await queue.settle(outcomes) == [True, True]
        assert loses.times == 1
        assert await queue.settle(outcomes) == [False, False]


@both
async def test_claiming_whose_answer_was_lost(
    url: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_at(url) as queue:
        await queue.add([task(f"t{i}") for i in range(5)])
        (first,) = await queue.claim(["default"], 1, LEASE, "me")
        loses = Loses("SKIP LOCKED", done, monkeypatch)
        claimed = await queue.claim(["default"], 3, LEASE, "me")
        assert loses.times == 1
        assert [t.id for t in (first, *claimed)] == ["t0", "t1", "t2", "t3"]
        assert {t.attempt for t in claimed} == {1}
        outcomes = [Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in claimed]
        assert await queue.settle(outcomes) == [True] * 3


@both
async def test_a_schedule_whose_answer_was_lost(
    url: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores_at(url).schedule_storage
    await store.open()
    loses = Loses("COMMIT", done, monkeypatch)
    assert await store.put(schedule("s"), 0)
    assert loses.times == 1
    assert not await store.put(schedule("s"), 0)
    await store.close()


# ---------------------------------------------------------------- servers


def test_a_server_that_moves_to_another_address_is_followed(servers: Servers) -> None:
    with (
        servers.another("postgres") as server,
        Proxy(server.port) as proxy,
        OmniQ(through(proxy, server, server.url)) as oq,
    ):
        batch = oq.map(square, range(100))
        server.stop()
        server.port = proxy.target = free_port()
        server.start()
        oq.workers.start(1)
        assert batch.results(timeout=100) == [i * i for i in range(100)]
        check(oq, 100)


def test_a_full_disk_is_told_and_nothing_is_half_written(
    servers: Servers, proxy: Proxy, url: str
) -> None:
    """The server's answer is the real one; its disk is not."""
    schema = url.rpartition("=")[2]
    full = f"""
        CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = 'disk_full';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.omniq_tasks
            EXECUTE FUNCTION {schema}.full();
    """
    with OmniQ(url) as oq:
        oq.submit(square, 0)
        asyncio.run(run_sql(servers("postgres").url, full))
        for number in (1, 1_000):
            with pytest.raises(StoreError, match="The disk of PostgreSQL"):
                oq.map(square, range(1, 1 + number))
        asyncio.run(run_sql(servers("postgres").url, f"DROP FUNCTION {schema}.full CASCADE"))
        assert oq.sql("select state from tasks")["state"].tolist() == ["queued"]
        oq.map(square, range(1, 10))
        oq.workers.start(1)
        oq.workers.stop(drain=True, timeout=60)
        check(oq, 10)


async def run_sql(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statements)
    await connection.close()


WORKER = """
import sys
from omniq_nb import OmniQ
from omniq_nb.core import worker

worker.LEASE, worker.BEAT = 3.0, 0.5
with OmniQ(sys.argv[1]) as oq:
    oq.workers.start(2)
    print("started", flush=True)
    sys.stdin.read()
"""


def square_slowly(i: int) -> int:
    time.sleep(0.003)
    return i * i


def test_workers_are_killed_and_the_server_restarts(servers: Servers) -> None:
    """`kill -9` of a random worker again and again, and of the server once."""
    number, dice = 3_000, random.Random(7)

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, server.url],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )

    with servers.another("postgres") as server, OmniQ(server.url) as oq:
        batch = oq.map(square_slowly, range(number))
        workers = [worker() for _ in range(3)]
        try:
            for turn in range(1, 7):
                while batch.counts().get(State.SUCCEEDED, 0) < turn * number / 8:
                    time.sleep(0.02)
                victim = dice.randrange(len(workers))
                workers[victim].kill()
                workers[victim].wait()
                workers[victim] = worker()
                if turn == 3:
                    server.restart()
            batch.wait(timeout=200)
        finally:
            for process in workers:
                process.kill()
                process.wait()
        check(oq, number)
