"""A TCP proxy that misbehaves on demand: a network between a client and a server, with faults.

It knows no protocol, and works for any server that is reached by one TCP port.
"""

import contextlib
import socket
import threading
import time
from typing import Self

CHUNK = 65_536


class Proxy:
    """Listens on a loopback port of its own and passes all on, until told otherwise.

    As a context manager it ends with the block, and so do its connections.

    Parameters
    ----------
    target : int
        The loopback port to pass connections on to.

    Attributes
    ----------
    port : int
        Where it listens.
    target : int
        May be changed: new connections then go to another server.
    delay : float
        Seconds that each chunk of data is held back, in both directions.
    refuses : bool
        New connections are closed at once, as if no server was there.
    silent : bool
        Nothing is passed on and nothing is closed, as when a cable is pulled out.
    accepted : int
        How many connections were passed on so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.refuses = False
        self.silent = False
        self.accepted = 0
        self._halve = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.refuses = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cut all connections that there are, in both directions."""
        with self._lock:
            cut, self._sockets = self._sockets, set()
        for end in cut:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def halve(self) -> None:
        """Pass on half of the next chunk that a client sends, and cut that connection."""
        self._halve.set()

    # ---------------------------------------------------------------- passing on

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self.accepted += 1
            with self._lock:
                self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                end = threading.Thread(
                    target=self._pass_on, args=(source, sink, source is client), daemon=True
                )
                end.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if self.delay:
                    time.sleep(self.delay)
                while self.silent and source in self._sockets:
                    time.sleep(0.01)
                if from_client and self._halve.is_set():
                    self._halve.clear()
                    sink.sendall(data[: len(data) // 2])
                    break
                sink.sendall(data)
        with self._lock:
            self._sockets -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the other thread closes the other one
