"""A Redis server: Debian's, or whichever is on the PATH as ``redis-server``."""

import contextlib
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from omniq_nb.testing.servers.base import Server

PASSWORD = "correct:horse/battery@staple"


class RedisServer(Server):
    """One server with a password.

    Attributes
    ----------
    settings : mapping
        Of the server. It writes each command to its disk before it answers, so that what was
        acknowledged survives a kill.
    """

    settings: Mapping[str, str] = {"appendonly": "yes", "appendfsync": "always", "save": ""}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.password = PASSWORD

    @property
    def url(self) -> str:
        """Where clients find it, with the password."""
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Give the words that start it in the foreground."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("The Redis for tests is missing: apt-get install redis-server")
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "requirepass": self.password,
            "enable-debug-command": "local",
            **self.settings,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [program, *words]

    def answers(self) -> bool:
        """Whether it serves: it accepts connections while it still reads its data."""
        words = f"AUTH {self.password}\r\nPING\r\n".encode()
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as probe,
        ):
            probe.sendall(words)
            said = b""
            while said.count(b"\r\n") < 2 and (more := probe.recv(1_000)):
                said += more
            return said == b"+OK\r\n+PONG\r\n"
        return False
