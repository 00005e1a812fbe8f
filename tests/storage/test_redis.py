"""What Redis stores do when network, server or workers fail, and what they promise."""

import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import redis.exceptions
from redis import Redis

from omniq_nb import OmniQ, State
from omniq_nb.config.options import RedisOptions
from omniq_nb.errors import ConfigError, StoreError, StoreUnavailable, StoreVersionError
from omniq_nb.models.task import LIVE, Claim, Settle, Task
from omniq_nb.storage.base import Query
from omniq_nb.storage.redis import RedisPlace, connections, database, scripts
from omniq_nb.storage.redis.queue import RedisTaskQueue
from omniq_nb.storage.redis.words import explained
from omniq_nb.testing import Recipe
from omniq_nb.testing.processes import Process
from omniq_nb.testing.proxy import Proxy
from omniq_nb.testing.samples import NEVER, NOON, event, result, schedule, task
from omniq_nb.testing.servers import Servers
from omniq_nb.testing.servers.base import free_port
from omniq_nb.testing.servers.redis import PASSWORD, RedisServer
from omniq_nb.testing.suite import opened, until
from tests.storage.test_conformance import redis_options

LONG = 600.0
SOON = 20.0


@pytest.fixture
def options(servers: Servers) -> RedisOptions:
    """A fresh prefix on the shared server."""
    return redis_options(servers)


@pytest.fixture
def own(servers: Servers) -> Iterator[RedisServer]:
    """A server of this test alone."""
    with servers.another("redis") as server:
        yield server


@pytest.fixture
def proxy(options: RedisOptions) -> Iterator[Proxy]:
    """A network that can fail, before the shared server."""
    with Proxy(options.port) as proxy:
        yield proxy


@pytest.fixture
async def queue(options: RedisOptions) -> AsyncIterator[RedisTaskQueue]:
    async with opened(RedisPlace(None, options).task_queue()) as queue:
        yield queue


def on(server: RedisServer, **changed: object) -> RedisOptions:
    given = {"host": "127.0.0.1", "port": server.port, "password": PASSWORD}
    return RedisOptions(**(given | changed))


def through(proxy: Proxy, options: RedisOptions, **changed: object) -> RedisPlace:
    return RedisPlace(None, msgspec.structs.replace(options, port=proxy.port, **changed))


def client(options: RedisOptions) -> Redis:
    return Redis(port=options.port, password=options.password)


def settles(held: Task) -> Settle:
    return Settle(id=held.id, token=held.token, to=State.SUCCEEDED)


# ---------------------------------------------------------------- answers that are lost


@pytest.fixture
def lossy(proxy: Proxy, options: RedisOptions):
    """Gives a function that waits for an operation whose first answer is lost on its way back.

    Where half a second is too short to notice that the server has done it, nothing is lost.
    """

    async def lose(operation, key: str):
        server, name = client(options), f"{{{options.prefix}}}:{key}"
        before = server.dump(name)
        proxy.delay = 0.5
        running = asyncio.ensure_future(operation)

        async def changed() -> bool:
            return server.dump(name) != before

        await until(changed, "the server has done it")
        proxy.delay = 0.0
        proxy.drop()
        return await asyncio.wait_for(running, SOON)

    return lose


async def test_what_is_sent_again_because_its_answer_was_lost_is_done_once(
    proxy: Proxy, options: RedisOptions, lossy
) -> None:
    place = through(proxy, options)
    async with opened(place.task_queue()) as queue, opened(place.result_storage()) as results:
        await queue.counts()
        assert await lossy(queue.add([task("a"), task("b")]), "tasks") == [True, True]
        held = await lossy(queue.claim(["default"], 5, LONG, "w"), "counts")
        assert [(each.id, each.attempt, each.token) for each in held] == [("a", 1, 1), ("b", 1, 1)]
        assert [each.call for each in held] == [b"a", b"b"]
        outcome = result("a", 1, payload=b"1")
        assert await lossy(queue.settle([settles(held[0])], [outcome]), "counts") == [True]
        assert await results.get([Claim("a", 1)]) == [outcome]
        assert await lossy(queue.transition(["b"], State.CANCELLED), "counts") == [State.CANCELLED]
        assert await queue.counts() == {
            ("default", State.SUCCEEDED): 1,
            ("default", State.CANCELLED): 1,
        }


async def test_schedules_and_events_are_stored_once_though_the_answer_was_lost(
    proxy: Proxy, options: RedisOptions, lossy
) -> None:
    place = through(proxy, options)
    async with opened(place.schedule_storage()) as schedules, opened(place.event_storage()) as log:
        await schedules.list()
        assert await lossy(schedules.put(schedule("s"), 0), "schedules")
        assert await lossy(schedules.put(schedule("s", every=5.0), 1), "schedules")
        assert await lossy(schedules.remove("s"), "schedules")
        await lossy(log.append([event("e")]), "events")
        assert (await log.scan(Query())).table.num_rows == 1
        assert client(options).zcard(f"{{{options.prefix}}}:events") == 1


async def test_a_claim_whose_answer_was_lost_and_whose_task_was_cancelled_is_not_given(
    proxy: Proxy, options: RedisOptions, queue: RedisTaskQueue
) -> None:
    await queue.add([task("a"), task("b")])
    async with opened(through(proxy, options).task_queue()) as far:
        await far.counts()
        proxy.delay = 1.0
        claiming = asyncio.create_task(far.claim(["default"], 5, LONG, "w"))

        async def running() -> bool:
            return ("default", State.RUNNING) in await queue.counts()

        await until(running, "both are claimed")
        await queue.transition(["a"], State.CANCELLED)
        proxy.delay = 0.0
        proxy.drop()
        assert [held.id for held in await asyncio.wait_for(claiming, SOON)] == ["b"]


async def test_a_command_that_a_later_one_has_overtaken_is_refused(options: RedisOptions) -> None:
    server, base = client(options), f"{{{options.prefix}}}"
    packed = msgspec.msgpack.encode((["default"], 1, LONG, "w", 10, ""))
    server.eval(scripts.CLAIM.text, 1, base, packed, "slot", 1)
    async with opened(RedisPlace(None, options).task_queue()) as queue:
        await queue.add([task("a"), task("b")])
        later = server.eval(scripts.CLAIM.text, 1, base, packed, "slot", 7)
        again = server.eval(scripts.CLAIM.text, 1, base, packed, "slot", 7)
        assert again[0][1:] == later[0][1:], "the same head and call"
        with pytest.raises(redis.exceptions.ResponseError, match="overtaken"):
            server.eval(scripts.CLAIM.text, 1, base, packed, "slot", 6)
        assert await queue.counts() == {
            ("default", State.QUEUED): 1,
            ("default", State.RUNNING): 1,
        }


@pytest.mark.heavy
async def test_a_network_that_fails_all_the_time_loses_and_doubles_nothing(
    proxy: Proxy, options: RedisOptions, queue: RedisTaskQueue
) -> None:
    place, done, chance = through(proxy, options), list[str](), random.Random(5)
    going_on = asyncio.Event()

    async def fail() -> None:
        while True:
            await going_on.wait()
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            going_on.clear()
            chance.choice([proxy.drop, proxy.halve])()

    async def work(far: RedisTaskQueue) -> None:
        while len(done) < 300:
            for held in await far.claim(["default"], 5, LONG, "w"):
                assert held.attempt == 1, "no claim was lost on the way"
                assert await far.settle([settles(held)]) == [True]
                done.append(held.id)
                going_on.set()

    async with opened(place.task_queue()) as far:
        failing = asyncio.create_task(fail())
        try:
            async with asyncio.timeout(100):
                working = [asyncio.create_task(work(far)) for _ in range(2)]
                for number in range(300):
                    assert await far.add([task(str(number))]) == [True]
                    going_on.set()
                await asyncio.gather(*working)
        finally:
            failing.cancel()
    assert Counter(done) == {str(number): 1 for number in range(300)}
    assert await queue.counts() == {("default", State.SUCCEEDED): 300}
    assert proxy.accepted > 10, "it failed often"


async def test_a_slow_network_only_takes_longer(proxy: Proxy, options: RedisOptions) -> None:
    proxy.delay = 0.02
    await _use_everything(through(proxy, options))


async def test_no_more_connections_than_allowed(proxy: Proxy, options: RedisOptions) -> None:
    async with opened(through(proxy, options, max_connections=2).task_queue()) as queue:
        await asyncio.gather(*[queue.add([task(f"t{i}")]) for i in range(40)])
        assert await queue.counts() == {("default", State.QUEUED): 40}
        assert proxy.accepted == 2


# ---------------------------------------------------------------- servers that come and go


async def test_a_restarted_server_is_found_again_with_all_it_acknowledged(
    own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "omniq_nb")
    async with opened(RedisPlace(None, on(own)).task_queue()) as queue:
        await queue.add([task(str(number)) for number in range(100)])
        own.kill()
        adding = asyncio.create_task(queue.add([task("meanwhile")]))
        counting = asyncio.create_task(queue.counts())
        await asyncio.sleep(0.2)
        assert not adding.done()
        await asyncio.to_thread(own.start)
        assert await asyncio.wait_for(adding, SOON) == [True]
        await counting
        assert await queue.counts() == {("default", State.QUEUED): 101}
        assert len(await queue.claim(["default"], 200, LONG, "w")) == 101
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert f"The Redis server at 127.0.0.1:{own.port}, database 0 cannot be reached" in said[0]
    assert "answers again" in said[1]
    assert not any(PASSWORD in line or "\n" in line for line in said)


async def test_a_script_that_the_server_forgot_is_sent_again(
    options: RedisOptions, queue: RedisTaskQueue
) -> None:
    client(options).script_flush()
    assert await queue.add([task("a")]) == [True]
    client(options).script_flush()
    assert [held.id for held in await queue.claim(["default"], 5, LONG, "w")] == ["a"]


async def test_a_server_that_takes_over_at_another_address_is_used(
    proxy: Proxy, options: RedisOptions, own: RedisServer
) -> None:
    """As behind a proxy or a name: the old server is a replica by now, and no longer writes."""
    async with opened(through(proxy, options).task_queue()) as queue:
        await queue.add([task("a")])
        old = Redis(port=own.port, password=PASSWORD)
        old.replicaof("127.0.0.1", options.port)
        proxy.target = own.port
        proxy.drop()
        adding = asyncio.create_task(queue.add([task("b")]))
        await asyncio.sleep(0.3)
        assert not adding.done(), "a replica takes nothing"
        proxy.target = options.port
        assert await asyncio.wait_for(adding, SOON) == [True]


async def test_a_server_that_is_busy_or_lacks_its_replicas_is_waited_for(
    own: RedisServer,
) -> None:
    admin = Redis(port=own.port, password=PASSWORD)
    async with opened(RedisPlace(None, on(own)).task_queue()) as queue:
        admin.config_set("min-replicas-to-write", 1)
        adding = asyncio.create_task(queue.add([task("a")]))
        await asyncio.sleep(0.2)
        assert not adding.done()
        admin.config_set("min-replicas-to-write", 0)
        assert await asyncio.wait_for(adding, SOON) == [True]

        admin.config_set("lua-time-limit", 10)
        endless = asyncio.create_task(asyncio.to_thread(admin.eval, "while true do end", 0))
        await asyncio.sleep(0.2)
        adding = asyncio.create_task(queue.add([task("b")]))
        await asyncio.sleep(0.2)
        assert not adding.done()
        Redis(port=own.port, password=PASSWORD).script_kill()
        with pytest.raises(redis.exceptions.ResponseError, match="killed"):
            await endless
        assert await asyncio.wait_for(adding, SOON) == [True]


async def test_a_server_that_is_absent_at_start_is_told_in_one_line(own: RedisServer) -> None:
    own.kill()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await RedisPlace(None, on(own)).task_queue().open()
    assert time.monotonic() - started < 10
    said = str(caught.value)
    assert f"127.0.0.1:{own.port}" in said
    assert "Check that the server runs" in said
    assert "\n" not in said
    assert PASSWORD not in said


async def test_a_server_that_stays_away_is_told_when_the_time_is_over(
    proxy: Proxy, options: RedisOptions
) -> None:
    async with opened(through(proxy, options, timeout=0.3).task_queue()) as queue:
        proxy.refuses = True
        proxy.drop()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await queue.counts()
        proxy.refuses = False
        assert await queue.counts() == {}
        proxy.silent = True
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 seconds"):
            await queue.counts()
        proxy.silent = False
        assert await queue.counts() == {}


# ---------------------------------------------------------------- words


async def test_a_wrong_password_is_told_and_not_shown(options: RedisOptions) -> None:
    for password in ("hunter2-wrong", None):
        wrong = msgspec.structs.replace(options, password=password)
        with pytest.raises(StoreUnavailable, match="does not let this user in") as caught:
            await RedisPlace(None, wrong).task_queue().open()
        assert "hunter2" not in str(caught.value) + repr(wrong) + repr(caught.value.__cause__)


async def test_keys_of_a_newer_version_are_refused(options: RedisOptions) -> None:
    async with opened(RedisPlace(None, options).task_queue()):
        assert client(options).get(f"{{{options.prefix}}}:version") == b"1"
    client(options).set(f"{{{options.prefix}}}:version", database.VERSION + 1)
    with pytest.raises(StoreVersionError, match=r"newer omniq_nb.*version 2, and this one knows 1"):
        await RedisPlace(None, options).task_queue().open()


async def test_a_server_without_memory_says_so_and_has_written_nothing(own: RedisServer) -> None:
    server = Redis(port=own.port, password=PASSWORD)
    async with opened(RedisPlace(None, on(own)).task_queue()) as queue:
        await queue.add([task("before")])
        server.config_set("maxmemory", "1mb")
        server.config_set("maxmemory-policy", "noeviction")
        with pytest.raises(StoreError, match=r"out of memory and took nothing.*maxmemory"):
            await queue.add([task("a"), task("b", depends_on=("a",))])
        assert await queue.get(["a", "b"]) == [None, None]
        server.config_set("maxmemory", "0")
        assert await queue.add([task("a"), task("b")]) == [True, True]


async def test_a_server_that_cannot_write_to_its_disk_says_so(servers: Servers) -> None:
    server = servers.another("redis")
    server.settings = {"save": "3600 1", "dbfilename": "taken"}
    with server:
        (server.folder / "taken" / "by a folder").mkdir(parents=True)
        admin = Redis(port=server.port, password=PASSWORD)
        async with opened(RedisPlace(None, on(server)).task_queue()) as queue:
            assert await queue.add([task("a")]) == [True]
            admin.bgsave()

            async def failed() -> bool:
                return admin.info("persistence")["rdb_last_bgsave_status"] == "err"

            await until(failed, "the snapshot failed")
            with pytest.raises(StoreError, match="cannot write to its disk") as caught:
                await queue.add([task("b")])
            assert not isinstance(caught.value, StoreUnavailable)
            admin.config_set("stop-writes-on-bgsave-error", "no")
            assert await queue.add([task("b")]) == [True]
        server.kill()  # it would not end without a snapshot


async def test_a_value_that_redis_cannot_hold_is_refused_before_it_is_sent(
    queue: RedisTaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LARGEST", 1 << 20)
    with pytest.raises(StoreError, match="no value of more than 1 MB, and this one has 2 MB"):
        await queue.add([task("a", call=bytes(2 << 20))])
    assert await queue.get(["a"]) == [None]


def test_a_node_of_a_cluster_that_has_not_the_keys_names_the_one_that_has() -> None:
    error = redis.exceptions.MovedError("3999 10.0.0.2:6381")
    assert "10.0.0.2:6381: give that address" in str(explained(error, RedisOptions()))


# ---------------------------------------------------------------- waking up


async def test_an_idle_worker_costs_next_to_nothing(own: RedisServer) -> None:
    async with opened(RedisPlace(None, on(own)).task_queue()) as queue:
        waiting = asyncio.create_task(queue.wait(["default"], LONG))

        async def listening() -> bool:
            return _requests(own).get("subscribe", 0) > 0

        await until(listening, "it listens")
        await asyncio.sleep(0.3)
        before = _requests(own)
        await asyncio.sleep(2.0)
        assert _requests(own) == before
        await queue.add([task("a")])
        await asyncio.wait_for(waiting, SOON)


def _requests(server: RedisServer) -> dict[str, int]:
    """What a server was asked to do so far, but for logging in and this question."""
    stats = client(on(server)).info("commandstats")
    asked = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    return {name: asked[name] for name in asked if name in ("eval", "evalsha", "ping", "subscribe")}


async def test_a_waiting_worker_is_woken_though_the_network_failed_meanwhile(
    proxy: Proxy, options: RedisOptions, queue: RedisTaskQueue
) -> None:
    async with opened(through(proxy, options).task_queue()) as far:
        waiting = asyncio.create_task(far.wait(["default"], LONG))
        await asyncio.sleep(0.1)
        proxy.refuses = True
        proxy.drop()
        await queue.add([task("a")])  # unheard
        await asyncio.sleep(0.1)
        proxy.refuses = False
        await asyncio.wait_for(waiting, SOON)
        (held,) = await far.claim(["default"], 5, LONG, "w")
        assert await far.settle([settles(held)]) == [True]
        waiting = asyncio.create_task(far.wait(["default"], LONG))
        await asyncio.sleep(0.1)
        await queue.add([task("b")])
        await asyncio.wait_for(waiting, SOON)


async def test_a_listener_notices_a_connection_that_is_dead_but_not_closed(
    proxy: Proxy, options: RedisOptions, queue: RedisTaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PROBE", 0.1)
    async with opened(through(proxy, options, timeout=1.0).task_queue()) as far:
        waiting = asyncio.create_task(far.wait(["default"], LONG))
        await asyncio.sleep(0.2)
        accepted = proxy.accepted
        proxy.silent = True

        async def noticed() -> bool:
            return proxy.accepted > accepted

        await until(noticed, "the listener connects again")
        proxy.silent = False
        await queue.add([task("a")])
        await asyncio.wait_for(waiting, SOON)


# ---------------------------------------------------------------- claims that take tasks along


@pytest.fixture
async def waiting(queue: RedisTaskQueue) -> "asyncio.Task[list[Task]]":
    """A worker of this process that waits, and claims at most two tasks when it is woken."""
    return await a_worker(queue)


async def a_worker(queue: RedisTaskQueue) -> "asyncio.Task[list[Task]]":
    async def work() -> list[Task]:
        await queue.wait(["default"], LONG)
        return await queue.claim(["default"], 2, LONG, "w")

    working = asyncio.create_task(work())
    await asyncio.sleep(0.2)
    return working


async def test_a_waiting_worker_takes_new_tasks_along_in_one_command(own: RedisServer) -> None:
    async with opened(RedisPlace(None, on(own)).task_queue()) as queue:
        for number in range(2):  # the first time the server does not know the script
            working = await a_worker(queue)
            before = _requests(own)["evalsha"]
            ids = [f"a{number}", f"b{number}"]
            assert await queue.add([task(id) for id in ids]) == [True, True]
            assert [held.id for held in await working] == ids
            commands = _requests(own)["evalsha"] - before
        assert commands == 1


async def test_what_a_waiting_worker_leaves_wakes_workers_elsewhere(
    options: RedisOptions, queue: RedisTaskQueue, waiting: "asyncio.Task[list[Task]]"
) -> None:
    async with opened(RedisPlace(None, options).task_queue()) as far:
        elsewhere = await a_worker(far)
        assert await queue.add([task("a"), task("b"), task("c")]) == [True] * 3
        assert [held.id for held in await waiting] == ["a", "b"]
        assert [held.id for held in await asyncio.wait_for(elsewhere, SOON)] == ["c"]


async def test_a_worker_takes_along_what_waits_longer_and_is_due_first(
    options: RedisOptions, queue: RedisTaskQueue, waiting: "asyncio.Task[list[Task]]"
) -> None:
    assert await queue.add([task("a"), task("b"), task("first", priority=5)]) == [True] * 3
    assert [held.id for held in await waiting] == ["first", "a"]
    waiting = await a_worker(queue)  # does not wait long: one was left
    assert [held.id for held in await asyncio.wait_for(waiting, SOON)] == ["b"]
    waiting = await a_worker(queue)
    assert await queue.add([task("a"), task("d", depends_on=("a",))]) == [False, True]
    assert await asyncio.wait_for(waiting, SOON) == []
    assert await queue.counts() == {
        ("default", State.RUNNING): 3,
        ("default", State.BLOCKED): 1,
    }


@pytest.mark.parametrize("fields", [{}, {"priority": 7}, {"expires_at": NEVER}], ids=str)
async def test_what_is_taken_along_is_stored_like_what_is_claimed_later(
    servers: Servers, fields: dict[str, object]
) -> None:
    answers = []
    for along in (True, False):
        options = redis_options(servers)
        async with opened(RedisPlace(None, options).task_queue()) as queue:
            await queue.add([task("later", available_at=NEVER, priority=1)])
            working = await a_worker(queue) if along else None
            assert await queue.add([task("a", tags=("t",), **fields)]) == [True]
            held = await (working or queue.claim(["default"], 2, LONG, "w"))
        for each in held:
            each.started_at, each.available_at = 0.0, 0.0
        answers.append((held, _stored(options)))
    assert answers[0] == answers[1]


def _stored(options: RedisOptions) -> dict[str, object]:
    """All that a prefix holds, but for times and answers."""
    server, found = client(options), dict[str, object]()
    for key in server.scan_iter(f"{{{options.prefix}}}:*"):
        name = key.decode().partition(":")[2]
        if name == "tasks":
            standings = server.hgetall(key)
            found[name] = {
                id: msgspec.msgpack.decode(packed) | {"available_at": 0, "started_at": 0}
                for id, packed in standings.items()
            }
        elif name.startswith(("due:", "levels:")):
            found[name] = server.zrange(key, 0, -1)
        elif not name.startswith("answer:"):
            found[name] = server.get(key) if server.type(key) == b"string" else server.hgetall(key)
    return found


async def test_what_was_taken_along_is_taken_once_though_the_answer_was_lost(
    proxy: Proxy, options: RedisOptions, lossy
) -> None:
    async with opened(through(proxy, options).task_queue()) as queue:
        waiting = await a_worker(queue)
        assert await lossy(queue.add([task("a")]), "tasks") == [True]
        (held,) = await asyncio.wait_for(waiting, SOON)
        assert (held.id, held.attempt, held.token) == ("a", 1, 1)
        assert await queue.settle([settles(held)]) == [True]


async def test_a_worker_gets_what_it_took_along_though_who_added_it_waits_no_more(
    queue: RedisTaskQueue, waiting: "asyncio.Task[list[Task]]"
) -> None:
    adding = asyncio.create_task(queue.add([task("a")]))
    for _ in range(3):
        await asyncio.sleep(0)
    adding.cancel()
    assert [held.id for held in await asyncio.wait_for(waiting, SOON)] == ["a"]


async def test_who_adds_is_told_if_the_worker_that_took_tasks_along_was_ended(
    queue: RedisTaskQueue, waiting: "asyncio.Task[list[Task]]"
) -> None:
    adding = asyncio.create_task(queue.add([task("a")]))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(StoreUnavailable, match="was ended"):
        await asyncio.wait_for(adding, SOON)


# ---------------------------------------------------------------- what is where


async def test_a_queue_that_is_asked_twice_gives_each_task_once(queue: RedisTaskQueue) -> None:
    await queue.add([task("a"), task("b")])
    held = await queue.claim(["default", "default"], 9, LONG, "w")
    assert [(each.id, each.token) for each in held] == [("a", 1), ("b", 1)]


async def test_projects_with_different_prefixes_do_not_see_each_other(
    options: RedisOptions,
) -> None:
    places = [
        RedisPlace(None, msgspec.structs.replace(options, prefix=options.prefix + end))
        for end in ("", ":", "}", "{x}", " *?[a]")
    ]
    for number, place in enumerate(places):
        async with opened(place.task_queue()) as queue:
            assert await queue.counts() == {}
            await queue.add([task(str(number))])
            assert [held.id for held in await queue.claim(["default"], 9, LONG, "w")] == [
                str(number)
            ]


async def test_redis_itself_deletes_a_result_that_nobody_purged(options: RedisOptions) -> None:
    server, key = client(options), f"{{{options.prefix}}}:result:"
    async with opened(RedisPlace(None, options).result_storage()) as results:
        ends = time.time() + 1000
        await results.put([result("a", expires_at=ends), result("b"), result("c", expires_at=ends)])
        assert 1000 < server.pttl(key + "a") / 1000 < 1000 + 3600 + 1
        assert server.pttl(key + "b") == -1
        server.delete(key + "c")  # as when its time had come
        assert await results.get([Claim("c", 1)]) == [None]
        found = (await results.scan(Query(columns=("task_id",)))).table
        assert sorted(found["task_id"].to_pylist()) == ["a", "b"]
        assert await results.purge(ends) == 2


async def test_a_narrow_scan_reads_only_its_range(options: RedisOptions) -> None:
    place = RedisPlace(None, options)
    async with opened(place.event_storage()) as events, opened(place.result_storage()) as results:
        for hour in range(50):
            at = NOON + hour * 3600
            await events.append([event(f"{hour}-{n}", at + n, data="x" * 500) for n in range(20)])
            await results.put(
                [result(f"{hour}-{n}", finished_at=at + n, value="x" * 500) for n in range(20)]
            )
        narrow = Query(since=NOON + 20 * 3600, until=NOON + 21 * 3600)
        for store in (events, results):
            sent = [_sent(options)]
            for query in (Query(), narrow):
                await store.scan(query)
                sent.append(_sent(options))
            everything, part = sent[1] - sent[0], sent[2] - sent[1]
            assert part < everything / 5


def _sent(options: RedisOptions) -> int:
    return client(options).info("stats")["total_net_output_bytes"]


async def test_old_events_are_purged_while_others_read_and_append(options: RedisOptions) -> None:
    place = RedisPlace(None, options)
    async with opened(place.event_storage()) as one, opened(place.event_storage()) as other:
        for number in range(100):
            some = [event(f"{number}-{n}", NOON + n * 10) for n in range(20)]
            await one.append([*some, event(f"kept-{number}", NOON + 55)])
        kept = {f"kept-{number}" for number in range(100)}

        async def read() -> None:
            for _ in range(5):
                found = (await other.scan(Query(columns=("id",)))).table["id"].to_pylist()
                assert kept <= set(found)

        reading = asyncio.create_task(read())
        assert await one.purge(NOON + 55) == 600
        await reading
        assert await one.purge(NEVER) == 1_500


async def test_all_keys_of_a_project_are_together_in_a_cluster(servers: Servers) -> None:
    server = servers.another("redis")
    server.settings = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "save": ""}
    with server:
        admin = Redis(port=server.port, password=PASSWORD)
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def ready() -> bool:
            return admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok"

        await until(ready, "the cluster is up")
        await _use_everything(RedisPlace(None, on(server)))


async def test_a_user_with_the_rights_that_are_documented_can_do_all(own: RedisServer) -> None:
    admin = Redis(port=own.port, password=PASSWORD)
    page = Path(__file__).parents[2] / "docs" / "backends.md"
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("ACL SETUSER")]
    admin.execute_command(*line.replace(">secret", ">pw").split())
    limited = on(own, username="omniq", password="pw")
    place = RedisPlace(None, limited)
    await _use_everything(place)
    other = RedisPlace(None, msgspec.structs.replace(limited, prefix="theirs"))
    with pytest.raises(StoreUnavailable, match="lacks a right") as caught:
        await other.task_queue().open()
    assert "backends.md" in str(caught.value)


async def _use_everything(place: RedisPlace) -> None:
    """One of each verb, and what the place promises."""
    async with (
        opened(place.task_queue()) as queue,
        opened(place.result_storage()) as results,
        opened(place.event_storage()) as events,
        opened(place.schedule_storage()) as schedules,
    ):
        await queue.add([task("a"), task("b", depends_on=("a",)), task("c", queue="other")])
        await queue.wait(["default"], 5)
        (held,) = await queue.claim(["default", "other"], 1, LONG, "w")
        assert await queue.extend([held.claim], LONG) == [True]
        assert await queue.settle([settles(held)], [result("a", 1, expires_at=NEVER)]) == [True]
        await queue.transition(["c"], State.CANCELLED)
        await queue.workers()
        assert (await queue.scan(Query())).table.num_rows == 3
        assert (await results.scan(Query())).table.num_rows == 1
        assert await results.get([Claim("a", 1)]) != [None]
        await events.append([event("e")])
        assert (await events.scan(Query())).table.num_rows == 1
        assert await schedules.put(schedule("s"), 0)
        assert len(await schedules.due(NEVER, 5)) == len(await schedules.list()) == 1
        assert await schedules.remove("s")
        waiting = asyncio.create_task(queue.wait(["other"], LONG))
        await asyncio.sleep(0.1)
        await queue.add([task("d", queue="other")])
        await asyncio.wait_for(waiting, SOON)
        assert await queue.purge(NEVER) == 2
        assert await results.purge(NEVER, NEVER) == 1
        assert await events.purge(NEVER) == 1
        assert "durability" in await place.promises()


# ---------------------------------------------------------------- doors


async def test_a_socket_in_the_file_system_is_a_door_too(servers: Servers) -> None:
    server = servers.another("redis")
    path = server.folder / "s"
    server.settings = {"unixsocket": str(path), "save": ""}
    with server:
        await _use_everything(RedisPlace(None, on(server, host=str(path))))


async def test_tls_works_with_the_right_certificate_and_is_refused_without(
    servers: Servers,
) -> None:
    server = servers.another("redis")
    cert, key = server.folder / "cert.pem", server.folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    port = free_port()
    server.settings = {
        "save": "",
        "tls-port": str(port),
        "tls-cert-file": str(cert),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(cert),
    }
    with server:
        door = on(server, port=port, ssl=True)
        trusted = msgspec.structs.replace(
            door, ssl_ca_certs=str(cert), ssl_certfile=str(cert), ssl_keyfile=str(key)
        )
        await _use_everything(RedisPlace(None, trusted))
        with pytest.raises(StoreUnavailable, match=r"not trusted.*ssl_ca_certs"):
            await RedisPlace(None, door).task_queue().open()
        mistyped = msgspec.structs.replace(door, ssl_ca_certs="./nowhere.pem")
        with pytest.raises(ConfigError, match=r"ssl_ca_certs: got './nowhere\.pem'"):
            await RedisPlace(None, mistyped).task_queue().open()


def test_a_missing_driver_is_named() -> None:
    code = (
        "import sys; sys.modules['hiredis'] = None; from omniq_nb.storage.redis import RedisPlace"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "StoreUnavailable: Redis needs a driver" in ended.stderr
    assert "pip install 'omniq_nb[redis]'" in ended.stderr


# ---------------------------------------------------------------- promises


async def test_what_a_server_promises_depends_on_how_it_is_run(own: RedisServer) -> None:
    admin, place = Redis(port=own.port, password=PASSWORD), RedisPlace(None, on(own))
    async with opened(place.task_queue()):
        said = await place.promises()
        assert list(said) == ["durability", "sharing", "exclusion"]
        assert "survives the death of the server and of its machine" in said["durability"]
        admin.config_set("appendfsync", "everysec")
        assert "last second or two" in (await place.promises())["durability"]
        admin.config_set("maxmemory", "1gb")
        admin.config_set("maxmemory-policy", "allkeys-lru")
        assert "set noeviction" in (await place.promises())["durability"]
        admin.config_set("appendonly", "no")
        assert "runs without AOF" in (await place.promises())["durability"]


# ---------------------------------------------------------------- processes


def test_a_forked_child_and_its_parent_both_go_on(options: RedisOptions) -> None:
    queue = RedisPlace(None, options).task_queue()
    with asyncio.Runner() as runner:
        runner.run(queue.open())
        assert runner.run(queue.add([task("parent")])) == [True]
        child = os.fork()
        if child == 0:
            try:
                with asyncio.Runner() as own:
                    ok = own.run(queue.add([task("child")])) == [True]
                os._exit(0 if ok else 1)
            except BaseException:
                os._exit(2)
        assert runner.run(queue.add([task("parent, too")])) == [True]
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert runner.run(queue.counts()) == {("default", State.QUEUED): 3}
        runner.run(queue.close())


async def work(queue: RedisTaskQueue, worker: str, log: str) -> None:
    """Claim and settle until no task is left, and write down what was settled."""
    with Path(log).open("a") as settled:
        while True:
            tasks = await queue.claim(["default"], 16, 1.0, worker)
            results = [result(held.id, held.token, finished_at=time.time()) for held in tasks]
            accepted = await queue.settle([settles(held) for held in tasks], results)
            settled.writelines(
                f"{held.id}\n" for held, ok in zip(tasks, accepted, strict=True) if ok
            )
            settled.flush()
            if not tasks:
                counts = await queue.counts()
                if not any(number for (_, state), number in counts.items() if state in LIVE):
                    return
                await queue.wait(["default"], 0.5)


@pytest.mark.heavy
async def test_killed_workers_and_a_restarted_server_lose_and_double_nothing(
    own: RedisServer, tmp_path: Path
) -> None:
    options, names = on(own), [str(number) for number in range(3_000)]
    place, log = RedisPlace(None, options), tmp_path / "settled"
    recipe = Recipe("omniq_nb.storage.redis:RedisPlace", (None, options))
    async with opened(place.task_queue()) as queue, opened(place.result_storage()) as results:
        workers: list[Process] = []

        def start() -> None:
            workers.append(Process(recipe, "task_queue"))
            workers[-1].start(work, f"worker-{len(workers)}", str(log))

        async def over() -> bool:
            return (await queue.counts()).get(("default", State.SUCCEEDED), 0) == len(names)

        try:
            for _ in range(3):
                start()
            # Tasks come while workers die, so that there is always something to lose.
            for kill, part in enumerate(range(0, len(names), 500)):
                await queue.add([task(name) for name in names[part : part + 500]])
                await asyncio.sleep(0.5)
                random.Random(kill).choice(workers[-3:]).kill()
                if kill == 3:
                    await asyncio.to_thread(own.restart)
                start()
            start()
            await until(over, "all tasks are done", 60)
        finally:
            for process in workers:
                process.__exit__()
        assert await queue.counts() == {("default", State.SUCCEEDED): len(names)}
        found = await results.scan(Query(columns=("task_id",)))
        assert sorted(found.table["task_id"].to_pylist()) == sorted(names), "each has one result"
    assert max(Counter(log.read_text().split()).values()) == 1, "settled once"


def square(n: int) -> int:
    return n * n


def test_a_user_sees_a_sweep_on_redis(servers: Servers, options: RedisOptions) -> None:
    url = f"{servers('redis').url}?prefix={options.prefix}"
    with OmniQ(url) as oq:
        oq.workers.start(2)
        squares = oq.map(square, range(20), name="sweep").results(timeout=60)
        assert squares == [n * n for n in range(20)]
        assert oq.submit(len, "abc").result(timeout=60) == 3
        oq.schedules.add("hourly", square, (2,), every="1h")
        for view, least in {"tasks": 21, "results": 21, "events": 21, "workers": 1}.items():
            assert len(oq.sql(f"from {view}")) >= least, view
        assert list(oq.sql("select id from schedules")["id"]) == ["hourly"]
        assert oq.sql("select sum(value) as s from results where batch = 'sweep'")["s"][0] == 2470
        assert PASSWORD not in repr(oq) + repr(oq.config)
