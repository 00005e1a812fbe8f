"""Where values come from: YAML text, the environment, ``${VAR}`` in any text, URLs.

Not here: what the values mean (`omniq_nb.config.model`).
"""

import difflib
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import yaml

from omniq_nb.errors import ConfigError

PREFIX = "OMNIQ_"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def nearest(word: object, known: Mapping[str, object] | list[str]) -> str | None:
    """The known word that was probably meant."""
    close = difflib.get_close_matches(str(word), list(known), 1)
    return close[0] if close else None


# ---------------------------------------------------------------- ${VAR}


def has_variables(value: object) -> bool:
    """Whether a text somewhere in this value names an environment variable."""
    if isinstance(value, str):
        return bool(_VARIABLE.search(value))
    if isinstance(value, Mapping):
        return any(map(has_variables, value.values()))
    return isinstance(value, list | tuple) and any(map(has_variables, value))


def expanded(value: Any, key: str) -> Any:
    """A value with ``${VAR}`` and ``${VAR:-default}`` replaced in all its texts.

    ``$${`` stands for ``${``.

    Raises
    ------
    ConfigError
        A variable is not set and has no default.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, key), value)
    if isinstance(value, Mapping):
        return {name: expanded(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [expanded(item, f"{key}[{i}]") for i, item in enumerate(value)]
    return value


def _variable(match: re.Match[str], key: str) -> str:
    name, default = match.groups()
    if name is None:
        return "${"
    value = os.environ.get(name) or default
    if value is None:
        allowed = f"the environment variable {name} to be set, or ${{{name}:-default}}"
        raise ConfigError(key, match.group(0), allowed)
    return value


# ---------------------------------------------------------------- YAML


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML in which a key that stands twice is an error, not a surprise."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(str(key), "the key twice", "each key once")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; an empty text is an empty one."""
    try:
        # The loader is yaml.SafeLoader with one more check.
        content = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the text"
        raise ConfigError("yaml", where, f"well-formed YAML ({error})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("yaml", type(content).__name__, "a mapping at the top")
    return content


def write_yaml(content: Mapping[str, object]) -> str:
    """A mapping as YAML, in its own order."""
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    return text


# ---------------------------------------------------------------- URLs


class Place(NamedTuple):
    """What a URL says: the type it implies, where that is, and options given within.

    `location` is a path for local backends and ``None`` for memory.
    """

    backend_type: str
    location: str | None
    options: dict[str, Any]


_SCHEMES = {
    "memory": "memory",
    "sqlite": "sqlite",
    "file": "file",
    "redis": "redis",
    "rediss": "redis",
    "postgres": "postgres",
    "postgresql": "postgres",
    "postgresql+asyncpg": "postgres",
    "postgresql+psycopg": "postgres",
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


def scheme_type(url: str, key: str, backend_type: str | None = None) -> str:
    """The backend type that a URL or path means.

    Raises
    ------
    ConfigError
        The scheme is unknown, or contradicts `backend_type`.
    """
    scheme, separator, _ = url.partition("://")
    if separator:
        implied = _SCHEMES.get(scheme.lower())
        if implied is None:
            allowed = f"a URL that starts with {', '.join(f'{s}://' for s in _SCHEMES)}, or a path"
            raise ConfigError(key, redacted(url), allowed, nearest(scheme, _SCHEMES))
    elif backend_type in ("sqlite", "file") or backend_type is None:
        name = url.lower()
        is_database = name == ":memory:" or name.endswith((".db", ".sqlite", ".sqlite3"))
        implied = backend_type or ("sqlite" if is_database else "file")
    else:
        raise ConfigError(key, redacted(url), f"a URL of the type {backend_type}")
    if backend_type is not None and implied != backend_type:
        allowed = f"a URL of the type {backend_type}; this one means {implied}"
        raise ConfigError(key, redacted(url), allowed)
    return implied


def parse_url(url: str, key: str, backend_type: str | None = None) -> Place:
    """What a URL or path says; its ``${VAR}`` are already expanded."""
    kind = scheme_type(url, key, backend_type)
    if "://" not in url:
        return Place(kind, url, {})
    if kind == "nats":
        return _nats(url, key)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(key, redacted(url), f"a well-formed URL ({error})") from None
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    path = unquote(parts.path)
    if kind == "memory":
        return Place(kind, None, options)
    if kind == "sqlite":
        if parts.netloc:
            allowed = "sqlite:///relative.db (three slashes) or sqlite:////absolute.db (four)"
            raise ConfigError(key, redacted(url), allowed)
        return Place(kind, path[1:] or ":memory:", options)
    if kind == "file":
        if parts.netloc not in ("", "localhost", ".", ".."):
            allowed = "file:///absolute/folder, or a relative path without a scheme"
            raise ConfigError(key, redacted(url), allowed)
        dots = parts.netloc if parts.netloc.startswith(".") else ""
        return Place(kind, (dots + path) or "/", options)
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    if kind in ("redis", "postgres"):
        if parts.hostname:
            options["host"] = parts.hostname
        if port:
            options["port"] = port
        if path.strip("/"):
            options["database"] = path.strip("/")
        if parts.scheme == "rediss":
            options["ssl"] = True
        return Place(kind, None, options)
    name = "container" if kind == "azure" else "bucket"
    if not parts.netloc:
        raise ConfigError(key, redacted(url), f"{parts.scheme}://{name}/prefix")
    options |= {name: parts.netloc.rpartition("@")[2], "prefix": path.strip("/")}
    return Place(kind, None, options)


def _nats(url: str, key: str) -> Place:
    """Several servers may be listed: ``nats://a:4222,b:4222``."""
    scheme, _, rest = url.partition("://")
    servers = []
    options: dict[str, Any] = {}
    for server in rest.split(","):
        address = server if "://" in server else f"{scheme}://{server}"
        parts = urlsplit(address)
        if not parts.hostname:
            raise ConfigError(key, redacted(url), "nats://host:4222,host:4222")
        if parts.username:
            options["username"] = unquote(parts.username)
        if parts.password:
            options["password"] = unquote(parts.password)
        host = parts.netloc.rpartition("@")[2]
        servers.append(f"{parts.scheme}://{host}")
        options |= dict(parse_qsl(parts.query))
    return Place("nats", None, options | {"servers": servers})


_SECRET_WORDS = ("password", "secret", "token", "key", "signature", "sig")


def redacted(url: str) -> str:
    """A URL without its password and without secret parameters; ``${VAR}`` stay."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    pieces = []
    for piece in rest.split(","):
        try:
            parts = urlsplit(f"{scheme}://{piece}")
        except ValueError:
            return f"{scheme}://***"
        netloc = parts.netloc
        user, at, host = netloc.rpartition("@")
        name, colon, password = user.partition(":")
        if colon and not _only_variable(password):
            netloc = f"{name}:***{at}{host}"
        query = "&".join(
            f"{name}=***" if _is_secret_name(name) and not _only_variable(value) else pair
            for pair in parts.query.split("&")
            for name, _, value in [pair.partition("=")]
        )
        pieces.append(urlunsplit(("", netloc, parts.path, query, parts.fragment))[2:])
    return f"{scheme}://{','.join(pieces)}"


def _only_variable(value: str) -> bool:
    match = _VARIABLE.fullmatch(unquote(value))
    # A default behind the variable's name is written out, and so no secret's place.
    return match is not None and not match.group(2)


def _is_secret_name(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def writes_secret(url: str) -> bool:
    """Whether a URL holds a password or another secret in clear."""
    return redacted(url) != url


# ---------------------------------------------------------------- files and environment


def read_text(path: str | os.PathLike[str]) -> str:
    """A configuration file.

    Raises
    ------
    ConfigError
        It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config file", str(path), f"a readable YAML file ({error})") from None


def from_environment(name: str) -> str | None:
    """The value of ``OMNIQ_<NAME>``; an empty one counts as unset."""
    return os.environ.get(PREFIX + name.upper()) or None
