"""Real servers for tests: each on a free loopback port, with data of its own, gone with its user.

One module for each kind; `Servers` starts the kinds that are asked for.
"""

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Self

from omniq_nb.testing.servers.base import Server

KINDS: dict[str, str] = {
    "redis": "omniq_nb.testing.servers.redis:RedisServer",
    "postgres": "omniq_nb.testing.servers.postgres:PostgresServer",
    "nats": "omniq_nb.testing.servers.nats:NatsServer",
    "moto": "omniq_nb.testing.servers.buckets:MotoServer",
    "seaweed": "omniq_nb.testing.servers.buckets:SeaweedServer",
    "azurite": "omniq_nb.testing.servers.buckets:AzuriteServer",
    "google": "omniq_nb.testing.servers.buckets:GoogleServer",
}
"""The class of each kind of server, as ``"module:Name"``."""


class Servers:
    """One server of each kind that somebody asked for, until the block ends.

    Parameters
    ----------
    folder : callable
        Gives an empty folder for the data of a server, by the name of its kind.

    Examples
    --------
    ``servers("redis").url`` starts the server if it does not run yet.
    """

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._running: dict[str, Server] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        self._stack.close()

    def __call__(self, kind: str) -> Server:
        """Give the shared server of that kind: tests keep to names of their own in it."""
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(self.another(kind))
        return self._running[kind]

    def another(self, kind: str) -> Server:
        """Make a server for one test alone, which may kill it; it starts as a context manager."""
        module, _, name = KINDS[kind].partition(":")
        made: Server = getattr(import_module(module), name)(self._folder(kind))
        return made


__all__ = ["KINDS", "Server", "Servers"]
