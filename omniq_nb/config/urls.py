"""URLs of backends: what they say, and how they are shown without their secrets.

Not here: ``${VAR}`` in them (`omniq_nb.config.sources`), and what the options mean
(`omniq_nb.config.options`).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from omniq_nb.config.sources import nearest, only_variables, without_variables
from omniq_nb.errors import ConfigError

EXAMPLES = {
    "memory": "memory://",
    "sqlite": "sqlite:///relative.db (three slashes), sqlite:////absolute.db (four) or a path",
    "file": "./folder or file:///absolute/folder",
    "redis": "redis://user:password@host:6379/0 or rediss://",
    "postgres": "postgresql://user:password@host:5432/database",
    "nats": "nats://host:4222,host:4222 or tls://",
    "s3": "s3://bucket/prefix",
    "gcs": "gs://bucket/prefix",
    "azure": "az://container/prefix or abfs://",
}
"""How a backend's URL looks, by `backend_type`."""

LOCAL = ("sqlite", "file")
"""The types whose place may also be written as a path."""

_SCHEMES = {
    "memory": "memory",
    "sqlite": "sqlite",
    "file": "file",
    "redis": "redis",
    "rediss": "redis",
    "postgres": "postgres",
    "postgresql": "postgres",
    "nats": "nats",
    "tls": "nats",
    "s3": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "azure": "azure",
}
_WITH_DRIVER = ("sqlite", "postgres", "postgresql")
"""Schemes that may name a driver, as SQLAlchemy's do: ``postgresql+asyncpg``. Ours is used."""

_DATABASE_FILES = (".db", ".sqlite", ".sqlite3")
_HOST = re.compile(r"(\[[^\]]*\]|[^@:/?#\[\]]*)(:\d+)?")
_NAME = re.compile(r"(\$\{\w+\}|[^:/?#@])*")
"""A user's name, with nothing that could be a password behind it."""

_SECRET_WORDS = ("password", "passwd", "secret", "token", "key", "credential", "sig")


class Place(NamedTuple):
    """What a URL says: the type it implies, where that is, and options given within.

    `location` is a path for local backends, the name of the space for memory (None: the unnamed
    one), and None for all others, whose place is in their options.
    """

    backend_type: str
    location: str | None
    options: dict[str, Any]


def scheme_type(url: str, key: str, backend_type: str | None = None) -> str:
    """The backend type that a URL or path means.

    Raises
    ------
    ConfigError
        The scheme is unknown, or contradicts `backend_type`.
    """
    scheme, separator, _ = url.partition("://")
    if separator:
        implied = _type_of_scheme(scheme.lower(), url, key)
    elif backend_type is not None:
        if backend_type not in LOCAL:
            # Without a scheme it may be anything, a connection string with a password too.
            raise ConfigError(key, "***", f"a URL: {EXAMPLES[backend_type]}")
        implied = backend_type
    elif url.lower() == ":memory:" or url.lower().endswith(_DATABASE_FILES):
        implied = "sqlite"
    elif "/" in url or "\\" in url or url.startswith((".", "~")):
        implied = "file"
    else:
        allowed = "a URL, a path with a slash such as ./data, or a file that ends in .db"
        raise ConfigError(key, url, allowed, nearest(url, EXAMPLES))
    if backend_type is not None and implied != backend_type:
        allowed = f"a URL of the type {backend_type} ({EXAMPLES[backend_type]}); this one means "
        raise ConfigError(key, redacted(url), allowed + implied)
    return implied


def _type_of_scheme(scheme: str, url: str, key: str) -> str:
    name, plus, _ = scheme.partition("+")
    implied = _SCHEMES.get(name if plus and name in _WITH_DRIVER else scheme)
    if scheme == "redis+sentinel":
        allowed = (
            "redis://host:port with the address, or the name, at which the primary is found: "
            "Redis Sentinel is not supported"
        )
        raise ConfigError(key, redacted(url), allowed)
    if implied is None:
        allowed = f"a URL that starts with {', '.join(f'{s}://' for s in _SCHEMES)}, or a path"
        raise ConfigError(key, redacted(url), allowed, nearest(scheme, _SCHEMES))
    return implied


def parse_url(url: str, key: str, backend_type: str | None = None) -> Place:
    """What a URL or path says; its ``${VAR}`` are already expanded."""
    kind = scheme_type(url, key, backend_type)
    if "://" not in url:
        return Place(kind, url, {})
    try:
        if kind == "memory" or kind in LOCAL:
            return _local(url, kind)
        return _nats(url) if kind == "nats" else _remote(url, kind)
    except ValueError:
        # The text of the original error may quote a part of a password.
        allowed = f"a well-formed URL: {EXAMPLES[kind]}"
        if kind not in LOCAL:
            allowed += "; in names and passwords, / ? # @ : as %2F %3F %23 %40 %3A"
        raise ConfigError(key, redacted(url), allowed) from None


def _local(url: str, kind: str) -> Place:
    # Not `urlsplit`: it would cut a file's name at "#" and drop line breaks.
    rest, _, query = url.partition("://")[2].partition("?")
    path = unquote(rest)
    if kind == "sqlite":
        if path in ("", ":memory:", "/:memory:"):
            path = ":memory:"
        elif path.startswith("/") and path != "/":
            path = path[1:]
        else:
            raise ValueError("the number of slashes")
    elif kind == "file":
        path = path.removeprefix("localhost")
        if not path.startswith(("/", "./", "../", "~/")):
            raise ValueError("a host")
    return Place(kind, path or None, _parameters(query))


def _remote(url: str, kind: str) -> Place:
    parts = urlsplit(url)
    if parts.fragment or "@" in parts.path:
        raise ValueError("a password that is not escaped")
    options = _parameters(parts.query) | _user(parts.username, parts.password)
    path = unquote(parts.path).strip("/")
    if kind not in ("redis", "postgres"):
        name = "container" if kind == "azure" else "bucket"
        bucket = parts.netloc.rpartition("@")[2]
        if not bucket:
            raise ValueError("no bucket")
        return Place(kind, None, options | {name: bucket, "prefix": path})
    if kind == "postgres" and "," in parts.netloc:
        given: dict[str, Any] = {"host": parts.netloc.rpartition("@")[2], "database": path}
    else:
        given = {"host": parts.hostname, "port": parts.port, "database": path}
    options |= {name: value for name, value in given.items() if value}
    if parts.scheme == "rediss":
        options["ssl"] = True
    return Place(kind, None, options)


def _nats(url: str) -> Place:
    """Several servers may be listed, with one user for all: ``nats://user:password@a,b``."""
    scheme, _, rest = url.partition("://")
    servers = []
    options: dict[str, Any] = {}
    for server in rest.split(","):
        parts = urlsplit(server if "://" in server else f"{scheme}://{server}")
        host = parts.netloc.rpartition("@")[2]
        if not parts.hostname or not _HOST.fullmatch(host) or parts.path.strip("/"):
            raise ValueError("no server")
        if parts.fragment:
            raise ValueError("no server")
        user = _user(parts.username, parts.password)
        if list(user) == ["username"]:
            user = {"token": user["username"]}  # so NATS reads a name without a password
        given = user | _parameters(parts.query)
        if any(options.get(name, value) != value for name, value in given.items()):
            raise ValueError("two users")
        options |= given
        servers.append(f"{parts.scheme}://{host}")
    return Place("nats", None, options | {"servers": servers})


def _user(name: str | None, password: str | None) -> dict[str, str]:
    given = {"username": name, "password": password}
    return {key: unquote(value) for key, value in given.items() if value}


def _parameters(query: str) -> dict[str, Any]:
    return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))


# ---------------------------------------------------------------- secrets


def redacted(url: str) -> str:
    """A URL without its password and without secret parameters; ``${VAR}`` stay.

    Also of URLs that are not well-formed, as those are whose password is not escaped: rather
    too much is hidden than a part of a password shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if scheme.lower() not in ("nats", "tls"):
        return f"{scheme}://{_redacted(rest)}"
    servers = [_redacted_server(server) for server in rest.split(",")]
    return f"{scheme}://{','.join(servers)}"


def _redacted_server(server: str) -> str:
    scheme, separator, rest = server.rpartition("://")
    user, at, host = rest.rpartition("@")
    if at and ":" not in user and not only_variables(user):
        return f"{scheme}{separator}***@{_redacted(host)}"  # a token
    if not at and not _HOST.fullmatch(without_variables(rest).partition("?")[0].rstrip("/")):
        return "***"  # a part of a password that has a comma in it
    return scheme + separator + _redacted(rest)


def _redacted(rest: str) -> str:
    """The part behind ``://``, without secrets."""
    authority = re.split("[/?#]", without_variables(rest))[0]
    if "@" in authority:
        # Well-formed: an "@" further behind is part of something else.
        head, mark, query = rest.partition("?")
    else:
        head, mark, query = rest, "", ""
    user, at, host = head.rpartition("@")
    if not _NAME.fullmatch(user):
        name, _, password = user.partition(":")
        if not password or not only_variables(password):
            user = re.split("[:/?#@]", name)[0] + ":***"
    if not mark:
        host, mark, query = host.partition("?")
    return user + at + host + mark + "&".join(map(_redacted_parameter, query.split("&")))


def _redacted_parameter(pair: str) -> str:
    name, equals, value = pair.partition("=")
    shown = value if only_variables(unquote(value)) or not is_secret_name(name) else "***"
    return name + equals + shown


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name should not be shown."""
    return any(word in name.lower() for word in _SECRET_WORDS)


def masked(value: object, secret: bool = False) -> object:
    """A value as it may be shown: secrets as ``***``, also those in URLs and in mappings.

    Parameters
    ----------
    value : object
        A value of a configuration.
    secret : bool
        The value itself is a secret.
    """
    if isinstance(value, str):
        if secret:
            return value if only_variables(value) else "***"
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: masked(item, is_secret_name(str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked(item, secret) for item in value)
    return "***" if secret and value is not None and not isinstance(value, bool) else value
