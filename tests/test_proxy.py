"""The proxy that other tests put between a client and a server does what it is told."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from omniq_nb.testing.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(1000):
                self.request.sendall(self.server.greeting + data)


@contextlib.contextmanager
def echo(greeting: bytes = b"") -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.greeting, server.daemon_threads = greeting, True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo() as port, Proxy(port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 20)


def ask(connection: socket.socket, words: bytes) -> bytes:
    connection.sendall(words)
    return connection.recv(1000)


def test_it_passes_everything_on(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert (ask(one, b"one"), ask(other, b"other")) == (b"one", b"other")
    assert proxy.accepted == 2


def test_it_drops_what_is_connected_and_takes_new_connections(proxy: Proxy) -> None:
    with connect(proxy) as one:
        ask(one, b"hello")
        proxy.drop()
        assert one.recv(1) == b""
    with connect(proxy) as another:
        assert ask(another, b"hello") == b"hello"


def test_it_refuses(proxy: Proxy) -> None:
    proxy.refuses = True
    with connect(proxy) as one, contextlib.suppress(ConnectionResetError):
        assert one.recv(1) == b""


def test_it_delays(proxy: Proxy) -> None:
    with connect(proxy) as one:
        proxy.delay = 0.05
        before = time.monotonic()
        assert ask(one, b"hello") == b"hello"
        assert time.monotonic() - before >= 0.1, "there and back"


def test_it_passes_half_a_message_on_and_cuts(proxy: Proxy) -> None:
    with connect(proxy) as one:
        proxy.halve()
        one.sendall(b"12345678")
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := one.recv(1000):
                received += data
        assert b"1234".startswith(received)


def test_it_falls_silent_and_goes_on(proxy: Proxy) -> None:
    with connect(proxy) as one:
        proxy.silent = True
        one.sendall(b"hello")
        one.settimeout(0.1)
        with pytest.raises(TimeoutError):
            one.recv(1)
        proxy.silent = False
        one.settimeout(20)
        assert one.recv(1000) == b"hello"


def test_it_may_lead_to_another_server(proxy: Proxy) -> None:
    with echo(b"another: ") as port:
        proxy.target = port
        with connect(proxy) as one:
            assert ask(one, b"hello") == b"another: hello"
