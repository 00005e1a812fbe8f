"""The project's signing key: outside every store, readable by its owner alone."""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from platformdirs import user_config_path

from omniq_nb.errors import ConfigError

_BYTES = 32


def project_key(project: str) -> bytes:
    """The key with which a project's payloads are signed.

    ``OMNIQ_SECRET_KEY``, where several machines share work; otherwise a random one, made once
    in the user's configuration folder.

    Parameters
    ----------
    project : str
        The project's name.

    Returns
    -------
    bytes
        32 of them.

    Raises
    ------
    ConfigError
        The key's file cannot be read or written, or is damaged.
    """
    shared = os.environ.get("OMNIQ_SECRET_KEY")
    if shared:
        return hashlib.sha256(shared.encode()).digest()
    # A name of dots or slashes must stay a name.
    path = user_config_path("omniq_nb") / "keys" / f"{quote(project, safe='')}.key"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        allowed = "a file that this user can read and write, or OMNIQ_SECRET_KEY in the environment"
        raise ConfigError("project key", str(path), f"{allowed} ({error.strerror})") from None
    if len(key) != _BYTES:
        allowed = f"{_BYTES} bytes; payloads signed with the lost key cannot be opened any more: "
        raise ConfigError("project key", str(path), f"{allowed}delete the file to make a new one")
    return key


def _make(path: Path) -> None:
    """Write a new key, unless another process is faster: then that one's is the key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # its mode is 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
