"""`StorageBackendConfig`: one backend as a user chose it, checked.

Not here: which backend a component has, and the default places (`omniq_nb.config.model`).
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec.structs import force_setattr

from omniq_nb.config.check import checked
from omniq_nb.config.options import BACKENDS, BackendOptions, FileOptions, fields, is_secret
from omniq_nb.config.sources import (
    check_variables,
    expanded,
    expanded_url,
    has_variables,
    nearest,
    within,
)
from omniq_nb.config.urls import (
    LOCAL,
    Place,
    is_secret_name,
    masked,
    parse_url,
    redacted,
    scheme_type,
)
from omniq_nb.errors import ConfigError

_TYPE_ALIASES = {"postgresql": "postgres", "gs": "gcs", "az": "azure", "abfs": "azure"}
_PLACE_OPTIONS = ("host", "port", "database", "servers", "bucket", "container")
"""Options that say where a backend is: URL and `config` must not disagree in these."""


@cache
def known_backends() -> tuple[str, ...]:
    """The backend types, ours and those that installed packages add."""
    # Slow: it reads the metadata of every installed package.
    from importlib.metadata import entry_points

    added = (point.name for point in entry_points(group="omniq_nb.backends"))
    return (*BACKENDS, *(name for name in added if name not in BACKENDS))


class StorageBackendConfig(msgspec.Struct, frozen=True):
    """One backend: its type, where it is, and its options.

    Parameters
    ----------
    backend_type : str
        ``memory sqlite file redis postgres nats s3 gcs azure``, or one that a package adds.
    url : str, optional
        Where it is: a URL, or a path for SQLite and file. Unless given, the type's default
        place under the base directory.
    config : mapping, optional
        Options of this type; see `omniq_nb.config.options`. They win over the URL's, but must
        not name another place.

    Raises
    ------
    ConfigError
        Something is unknown or wrong; the message says what is allowed.
    """

    backend_type: str
    url: str | None = None
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "backend_type", _type(self.backend_type))
        force_setattr(self, "url", _url(self.url))
        if self.config is not None:
            if not isinstance(self.config, Mapping):
                raise ConfigError("config", type(self.config).__name__, "a mapping of options")
            force_setattr(self, "config", _ordered(plain(self.config), self.backend_type) or None)
        check_variables(self.url, "url")
        check_variables(self.config, "config")
        if self.backend_type not in BACKENDS:
            return
        if not has_variables(self.url) and not has_variables(self.config):
            self.options()
            self.path()
            return
        # The rest is checked when the variables have values.
        with within("config."):
            checked(
                BACKENDS[self.backend_type],
                {name: item for name, item in (self.config or {}).items() if not self._late(name)},
            )
        if self.url is not None and not has_variables(self.url):
            self._from_url(self.place())

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The backend that a URL, a path, or the mere name of a type means."""
        text = _url(url)
        if text is None:
            raise ConfigError("url", None, "a URL or a path")
        if text.lower() in BACKENDS:
            return cls(text)
        scheme, separator, _ = text.partition("://")
        if not separator or has_variables(scheme):
            return cls(scheme_type(expanded_url(text, "url"), "url"), text)
        return cls(scheme_type(text, "url"), text)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The backend of a mapping with ``backend_type``, ``url`` and ``config``."""
        known = cls.__struct_fields__
        for name in given:
            if name not in known:
                close = nearest(name, known)
                raise ConfigError(str(name), "an unknown key", ", ".join(known), close)
        if given.get("backend_type") is not None:
            return cls(**given)
        if given.get("url") is None:
            raise ConfigError("backend_type", None, ", ".join(known_backends()))
        backend = cls.from_url(given["url"])
        return cls(backend.backend_type, backend.url, given.get("config"))

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, as written."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}

    def resolved_type(self) -> Self:
        """The same with the variables of `backend_type` replaced, if it has any."""
        if not has_variables(self.backend_type):
            return self
        kind = expanded(self.backend_type, "backend_type")
        return type(self)(kind, self.url, self.config)

    def options(self) -> BackendOptions:
        """All options with their values, ``${VAR}`` and the URL resolved.

        Raises
        ------
        ConfigError
            A variable is not set, or a value is wrong.
        """
        kind = BACKENDS[self.backend_type]
        given = expanded(self.config or {}, "config")
        with within("config."):
            given = checked(kind, given)
        values = {} if self.url is None else self._from_url(self.place())
        for name, value in given.items():
            if values.get(name, value) != value and value is not None and name in _PLACE_OPTIONS:
                allowed = f"the same as in the url, which is {values[name]!r}, or nothing"
                raise ConfigError(f"config.{name}", value, allowed)
            if value is not None or name not in values:
                values[name] = value
        with within("config."):
            return kind(**values)

    def place(self) -> Place:
        """What the URL says.

        Raises
        ------
        ConfigError
            There is none, or it is wrong.
        """
        if self.url is None:
            raise ConfigError("url", None, f"the URL of a {self.backend_type} backend")
        return parse_url(expanded_url(self.url, "url"), "url", self.backend_type)

    def path(self) -> str | None:
        """Where a SQLite or file backend says it is: an absolute path, or ``:memory:``.

        Raises
        ------
        ConfigError
            URL, ``base_dir`` and ``fsspec_uri`` disagree, or one of them is no local path.
        """
        if self.backend_type not in LOCAL:
            return None
        said = {} if self.url is None else {"url": self.place().location or ""}
        options = self.options()
        if isinstance(options, FileOptions):
            if options.base_dir is not None:
                said["config.base_dir"] = options.base_dir
            if options.fsspec_uri is not None:
                said["config.fsspec_uri"] = _folder(options.fsspec_uri)
        paths = {key: absolute(path, key) for key, path in said.items()}
        if len(set(paths.values())) > 1:
            key, path = paths.popitem()
            raise ConfigError(key, path, f"one folder, not also {paths.popitem()[1]}")
        return next(iter(paths.values()), None)

    def written_secrets(self) -> list[str]:
        """The keys whose values hold secrets in clear."""
        shown = dict(self.__rich_repr__())
        found = ["url"] if shown.get("url") != self.url else []
        options = (self.config or {}).items()
        return found + [f"config.{name}" for name, item in options if shown["config"][name] != item]

    def _from_url(self, place: Place) -> dict[str, Any]:
        with within("url: "):
            return checked(BACKENDS[self.backend_type], place.options)

    def _late(self, name: str) -> bool:
        """Whether a value of `config` is known only when its variables are."""
        known = fields(BACKENDS[self.backend_type])
        return name in known and has_variables((self.config or {})[name])

    def __hash__(self) -> int:
        return hash((self.backend_type, self.url))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("backend_type", self.backend_type)]
        if self.url is not None:
            shown.append(("url", redacted(self.url)))
        if self.config is not None:
            kind = BACKENDS.get(self.backend_type)
            known = {} if kind is None else fields(kind)
            secret = {name for name, field in known.items() if is_secret(field)}
            named = {
                name: masked(value, name in secret or is_secret_name(name))
                for name, value in self.config.items()
            }
            shown.append(("config", named))
        return shown

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"StorageBackendConfig({shown})"


def plain(value: Any) -> Any:
    """A value as YAML has it: lists for tuples, texts for paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _ordered(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Options in the order of their Struct, so that equal ones are written alike."""
    known = fields(BACKENDS[kind]) if kind in BACKENDS else {}
    return {name: config[name] for name in known if name in config} | config


def absolute(path: str, key: str) -> str:
    """One spelling for all paths of a file or folder."""
    if path == ":memory:":
        return path
    try:
        return str(Path(path).expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(key, path, f"a path of this machine ({error})") from None


def _type(given: object) -> str:
    if isinstance(given, str) and has_variables(given):
        check_variables(given, "backend_type")
        return given
    kind = str(given).lower()
    kind = _TYPE_ALIASES.get(kind, kind)
    if kind not in BACKENDS and kind not in known_backends():
        allowed = ", ".join(known_backends())
        raise ConfigError("backend_type", given, allowed, nearest(kind, known_backends()))
    return kind


def _url(given: object) -> str | None:
    if given is None:
        return None
    text = plain(given)
    if not isinstance(text, str) or not text:
        raise ConfigError("url", masked(text), "a URL or a path")
    return text


def _folder(uri: str) -> str:
    """The folder of a ``file://`` URI."""
    key = "config.fsspec_uri"
    kind = scheme_type(uri, key)
    if kind != "file":
        allowed = f"a file:// URI; for this one, backend_type must be {kind!r}"
        raise ConfigError(key, redacted(uri), allowed)
    return parse_url(uri, key).location or ""
