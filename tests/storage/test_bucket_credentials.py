"""Who asks: keys of the configuration, or else what each cloud's own chain of credentials finds."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from omniq_nb.config.options import AzureOptions
from omniq_nb.errors import StoreUnavailable
from omniq_nb.storage.buckets.clouds import CLOUDS
from omniq_nb.storage.buckets.place import AzurePlace, GcsPlace, S3Place
from omniq_nb.testing.suite import opened

moto, azurite, google = (pytest.mark.xdist_group(kind) for kind in ("moto", "azurite", "google"))


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Nobody is logged in to any cloud on this machine."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(servers):
    """A place that names no keys, and who asks there."""
    options = servers("moto").backend().options()

    async def asks(**more):
        place = S3Place(None, msgspec.structs.replace(options, key=None, secret=None, **more))
        async with opened(place.event_storage()):
            found = await place.connection._session().fs.session.get_credentials()
            return found.access_key

    return asks


@moto
async def test_s3_takes_keys_from_the_environment(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert await s3() == "from-environment"


@moto
async def test_s3_takes_keys_from_a_profile(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = by-default\naws_secret_access_key = secret\n"
        "[lab]\naws_access_key_id = of-the-lab\naws_secret_access_key = secret\n"
    )
    assert await s3(profile="lab") == "of-the-lab"
    with pytest.raises(StoreUnavailable, match="no-such-profile"):
        await s3(profile="no-such-profile")


@moto
async def test_s3_says_that_there_are_no_keys(s3):
    with pytest.raises(StoreUnavailable, match="credentials"):
        await s3()


@azurite
async def test_azure_takes_a_connection_string_from_the_environment(servers, monkeypatch):
    options = servers("azurite").backend().options()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", options.connection_string)
    nothing = msgspec.structs.replace(options, connection_string=None)
    async with opened(AzurePlace(None, nothing).event_storage()):
        pass


async def test_azure_asks_as_whoever_is_logged_in():
    cloud = CLOUDS["azure"]
    fs = cloud.filesystem(AzureOptions(container="c", account_name="lab"))
    assert type(fs.credential).__name__ == "DefaultAzureCredential"
    await cloud.close(fs)


@pytest.fixture
def tokens():
    """What gives tokens instead of Google, and how often it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            answer = {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked
        server.shutdown()
        thread.join()


@google
async def test_google_takes_the_account_of_the_environment(servers, tokens, monkeypatch, tmp_path):
    url, asked = tokens
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": "tests",
        "client_email": "robot@lab.example",
        "token_uri": url,
        "private_key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    }
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    options = servers("google").backend().options()
    place = GcsPlace(None, msgspec.structs.replace(options, token=None))
    async with opened(place.event_storage()):
        pass
    assert asked
