"""What a worker that has nothing to do costs a server: every request is counted there."""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from omniq_nb import OmniQ
from omniq_nb.testing.servers import Servers
from omniq_nb.testing.servers.base import free_port
from omniq_nb.testing.servers.nats import NatsServer
from omniq_nb.testing.servers.postgres import PostgresServer
from omniq_nb.testing.servers.redis import RedisServer
from tests.waiting import until

WINDOW = 20.0
"""Seconds: long enough for whatever comes rarely."""

Count = Callable[[], int]


@contextmanager
def redis(server: RedisServer) -> Iterator[Count]:
    """Commands of clients, not those of scripts, as the server itself shows them."""
    seen = 0
    watches = threading.Event()

    def watch() -> None:
        nonlocal seen
        with (
            Redis(port=server.port, password=server.password) as client,
            client.monitor() as monitor,
            suppress(RedisConnectionError),  # when the server ends
        ):
            watches.set()
            for command in monitor.listen():
                seen += command["client_type"] != "lua"

    watching = threading.Thread(target=watch)
    with server:
        watching.start()
        assert watches.wait(60)
        yield lambda: seen
    watching.join()


@contextmanager
def postgres(server: PostgresServer) -> Iterator[Count]:
    """Statements, as the server logs them."""
    server.settings = {**server.settings, "log_statement": "all"}
    with server:
        yield lambda: len(re.findall(r"LOG:  (?:execute [^:]*|statement): ", server.log()))


@contextmanager
def nats(server: NatsServer) -> Iterator[Count]:
    """Messages of clients, as the server counts them."""
    port = free_port()
    server.settings["http"] = f"127.0.0.1:{port}"

    def asked() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz") as page:
            number: int = json.load(page)["in_msgs"]
        return number

    with server:
        yield asked


@pytest.mark.long
def test_an_idle_worker_asks_less_than_once_a_second(servers: Servers) -> None:
    with ExitStack() as stack:
        counts: dict[str, Count] = {}
        for kind, counted in {"redis": redis, "postgres": postgres, "nats": nats}.items():
            server = servers.another(kind)
            counts[kind] = stack.enter_context(counted(server))
            oq = stack.enter_context(OmniQ(server.url))
            oq.workers.start(4)
            assert oq.submit(len, "abc").result(timeout=60) == 3
            before = counts[kind]()
            until(lambda kind=kind, before=before: counts[kind]() > before, "it beats, and counts")
        time.sleep(5)  # the first looks at the schedules come sooner
        before, started = {kind: count() for kind, count in counts.items()}, time.monotonic()
        time.sleep(WINDOW)
        asked = {kind: count() - before[kind] for kind, count in counts.items()}
        seconds = time.monotonic() - started
    assert all(0 < number < seconds for number in asked.values()), (asked, seconds)
