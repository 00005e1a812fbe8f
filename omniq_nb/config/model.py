"""`OmniQConfig` and `StorageBackendConfig`: what a user chose, checked, and what follows from it.

Precedence of a setting: given explicitly, then the environment, then the default. Of a
component's backend: given explicitly, then the environment, then the task queue's backend,
then SQLite. What is written ``${VAR}`` stays so in the object, in YAML and in Python, and is
read from the environment each time it is needed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args
from urllib.parse import quote

import msgspec
from msgspec.inspect import Metadata, type_info

from omniq_nb.config.options import BACKENDS, BackendOptions, Settings
from omniq_nb.config.sources import (
    Place,
    expanded,
    from_environment,
    has_variables,
    nearest,
    parse_url,
    read_text,
    read_yaml,
    redacted,
    scheme_type,
    write_yaml,
    writes_secret,
)
from omniq_nb.errors import ConfigError

COMPONENTS = ("task_queue", "result_storage", "event_storage", "schedule_storage")
"""The four components, in the order in which they are asked for."""

_ALIASES = {"default_ttl": "task_ttl"}
_TYPE_ALIASES = {"postgresql": "postgres", "gs": "gcs", "az": "azure", "abfs": "azure"}


def fields(options: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of an options Struct by name."""
    return {field.name: field for field in msgspec.structs.fields(options)}


def description(field: msgspec.structs.FieldInfo) -> str:
    """What a field is about, in words."""
    info = type_info(field.type)
    while isinstance(info, Metadata):
        text = (info.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        info = info.type
    return ""


def is_secret(field: msgspec.structs.FieldInfo) -> bool:
    """Whether a field's value must never be shown."""
    info = type_info(field.type)
    while isinstance(info, Metadata):
        if (info.extra or {}).get("secret"):
            return True
        info = info.type
    return False


def _checked(options: type[msgspec.Struct], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Given values converted to the types of their fields.

    Raises
    ------
    ConfigError
        A key is unknown, or a value is wrong.
    """
    known = fields(options)
    converted = {}
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(known) or "no options"
            raise ConfigError(f"{where}{name}", "an unknown key", allowed, nearest(name, known))
        field = known[name]
        try:
            converted[name] = msgspec.convert(_parsed(value, field), field.type, strict=False)
        except msgspec.ValidationError as error:
            shown = "***" if is_secret(field) else value
            allowed = _allowed(field, str(error))
            choice = nearest(value, _choices(field)) if isinstance(value, str) else None
            raise ConfigError(f"{where}{name}", shown, allowed, choice) from None
    return converted


def _parsed(value: Any, field: msgspec.structs.FieldInfo) -> Any:
    """Texts, as an environment holds them, for fields that are no texts."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    origin = getattr(_bare(field.type), "__origin__", None)
    if origin is tuple:
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        try:
            return json.loads(value)
        except ValueError:
            return value  # the conversion says what is wrong
    if _choices(field):
        choices = {choice.lower(): choice for choice in _choices(field)}
        return choices.get(value.lower(), value)
    return value


def _bare(annotation: Any) -> Any:
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return annotation


def _choices(field: msgspec.structs.FieldInfo) -> list[str]:
    words = get_args(_bare(field.type))
    return list(words) if words and all(isinstance(word, str) for word in words) else []


def _allowed(field: msgspec.structs.FieldInfo, problem: str) -> str:
    if choices := _choices(field):
        return ", ".join(choices)
    return f"{description(field)} {problem.partition(' - at')[0]}"


class StorageBackendConfig:
    """One backend: its type, where it is, and its options.

    Parameters
    ----------
    backend_type : str
        ``memory sqlite file redis postgres nats s3 gcs azure``, or one that a package adds.
    url : str, optional
        Where it is: a URL, or a path for SQLite and file. Unless given, the type's default
        place under the base directory.
    config : mapping, optional
        Options of this type; see `omniq_nb.config.options`. They win over the URL's.

    Raises
    ------
    ConfigError
        Something is unknown or wrong; the message says what is allowed.
    """

    __slots__ = ("backend_type", "config", "url")

    def __init__(
        self,
        backend_type: str,
        url: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        where: str = "",
    ) -> None:
        kind = str(backend_type).lower()
        self.backend_type = _TYPE_ALIASES.get(kind, kind)
        if self.backend_type not in known_backends():
            allowed = ", ".join(known_backends())
            close = nearest(kind, list(known_backends()))
            raise ConfigError(f"{where}backend_type", backend_type, allowed, close)
        if url is not None and not isinstance(url, str | os.PathLike):
            raise ConfigError(f"{where}url", url, "a URL or a path")
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError(f"{where}config", config, "a mapping of options")
        self.url = None if url is None else os.fspath(url)
        self.config: dict[str, Any] | None = None if config is None else dict(config)
        self._check(where)

    @classmethod
    def from_url(cls, url: str, *, where: str = "") -> Self:
        """The backend that a URL or a path means, its type taken from the scheme."""
        if not isinstance(url, str) or not url:
            raise ConfigError(f"{where}url", url, "a URL or a path")
        return cls(scheme_type(expanded(url, f"{where}url"), f"{where}url"), url, where=where)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], *, where: str = "") -> Self:
        """The backend of a mapping with ``backend_type``, ``url`` and ``config``."""
        known = ["backend_type", "url", "config"]
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{where}{name}", "an unknown key", ", ".join(known), nearest(name, known)
                )
        if "backend_type" in given:
            return cls(given["backend_type"], given.get("url"), given.get("config"), where=where)
        if given.get("url"):
            backend = cls.from_url(given["url"], where=where)
            return cls(backend.backend_type, backend.url, given.get("config"), where=where)
        raise ConfigError(f"{where}backend_type", None, ", ".join(known_backends()))

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, as written."""
        given: dict[str, Any] = {"backend_type": self.backend_type}
        if self.url is not None:
            given["url"] = self.url
        if self.config:
            given["config"] = dict(self.config)
        return given

    def options(self) -> BackendOptions:
        """All options with their values, ``${VAR}`` and the URL resolved.

        Raises
        ------
        ConfigError
            A variable is not set, or a value is wrong.
        """
        kind = BACKENDS[self.backend_type]
        given = expanded(self.config or {}, "config")
        from_url = {} if self.url is None else self.place().options
        return kind(**_checked(kind, {**from_url, **given}, "config."))

    def place(self) -> Place:
        """What the URL says.

        Raises
        ------
        ConfigError
            There is none, or it is wrong.
        """
        if self.url is None:
            raise ConfigError("url", None, f"the URL of a {self.backend_type} backend")
        return parse_url(expanded(self.url, "url"), "url", self.backend_type)

    def written_secrets(self) -> list[str]:
        """The keys whose values are secrets in clear."""
        found = ["url"] if self.url is not None and writes_secret(self.url) else []
        known = fields(BACKENDS[self.backend_type]) if self.backend_type in BACKENDS else {}
        for name, value in (self.config or {}).items():
            if name in known and is_secret(known[name]) and value and not has_variables(value):
                found.append(f"config.{name}")
        return found

    def _check(self, where: str) -> None:
        if self.backend_type not in BACKENDS:
            return
        kind = BACKENDS[self.backend_type]
        fixed = {name: v for name, v in (self.config or {}).items() if not has_variables(v)}
        unknown = {name: v for name, v in (self.config or {}).items() if name not in fixed}
        _checked(kind, fixed, f"{where}config.")
        _checked(kind, dict.fromkeys(unknown.keys() - fields(kind).keys()), f"{where}config.")
        if self.url is not None and not has_variables(self.url):
            place = parse_url(self.url, f"{where}url", self.backend_type)
            _checked(kind, place.options, f"{where}url: ")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StorageBackendConfig):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.backend_type, self.url))

    def __repr__(self) -> str:
        given = self.to_dict()
        if self.url is not None:
            given["url"] = redacted(self.url)
        for key in self.written_secrets():
            if key != "url":
                given["config"] = given["config"] | {key.removeprefix("config."): "***"}
        return f"StorageBackendConfig({', '.join(f'{k}={v!r}' for k, v in given.items())})"


def known_backends() -> list[str]:
    """The backend types, ours and those that installed packages add."""
    from importlib.metadata import entry_points

    return [*BACKENDS, *(point.name for point in entry_points(group="omniq_nb.backends"))]


Given = StorageBackendConfig | Mapping[str, Any] | str


class OmniQConfig:
    """The configuration of one client: four backends, and the settings of the library.

    Parameters
    ----------
    task_queue_backend, result_storage_backend, event_storage_backend, schedule_storage_backend
        A `StorageBackendConfig`, a mapping with its fields, or a URL. What is not given comes
        from the environment, then from the task queue, then it is SQLite.
    **settings
        Any field of `omniq_nb.config.options.Settings`; ``default_ttl`` is another name of
        ``task_ttl``.

    Raises
    ------
    ConfigError
        Something is unknown or wrong; the message says what is allowed.

    Examples
    --------
    >>> from omniq_nb import OmniQConfig
    >>> config = OmniQConfig(task_queue_backend="sqlite:///tasks.db", retry_attempts=2)
    >>> config.get_event_storage_backend_config().backend_type
    'sqlite'
    """

    task_queue_backend: StorageBackendConfig | None
    result_storage_backend: StorageBackendConfig | None
    event_storage_backend: StorageBackendConfig | None
    schedule_storage_backend: StorageBackendConfig | None

    def __init__(
        self,
        *,
        task_queue_backend: Given | None = None,
        result_storage_backend: Given | None = None,
        event_storage_backend: Given | None = None,
        schedule_storage_backend: Given | None = None,
        **settings: Any,
    ) -> None:
        self.task_queue_backend = _backend("task_queue", task_queue_backend)
        self.result_storage_backend = _backend("result_storage", result_storage_backend)
        self.event_storage_backend = _backend("event_storage", event_storage_backend)
        self.schedule_storage_backend = _backend("schedule_storage", schedule_storage_backend)
        known = fields(Settings)
        self._given: dict[str, Any] = {}
        for name, value in settings.items():
            name = _ALIASES.get(name, name)
            if name not in known:
                keys = [*known, *(f"{component}_backend" for component in COMPONENTS)]
                raise ConfigError(name, "an unknown key", ", ".join(keys), nearest(name, keys))
            if value is not None or known[name].default is None:
                self._given[name] = list(value) if isinstance(value, tuple) else value
        fixed = {name: value for name, value in self._given.items() if not has_variables(value)}
        _checked(Settings, fixed, "")

    # ---------------------------------------------------------------- sources

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The configuration of a mapping, as YAML and `to_dict` have it."""
        for key in given:
            if not isinstance(key, str):
                raise ConfigError(str(key), "an unknown key", "keys that are texts")
        return cls(**given)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """The configuration of a YAML file."""
        return cls.from_yaml_text(read_text(path))

    @classmethod
    def from_yaml_text(cls, text: str) -> Self:
        """The configuration of a YAML text."""
        return cls.from_dict(read_yaml(text))

    @classmethod
    def from_env(cls) -> Self:
        """What the environment says now, written down: later changes of it do not matter."""
        given: dict[str, Any] = {}
        for name in fields(Settings):
            value = from_environment(name)
            if value is not None:
                given[name] = _checked(Settings, {name: value}, "OMNIQ_")[name]
        for component in COMPONENTS:
            backend = _backend_from_environment(component)
            if backend is not None:
                given[f"{component}_backend"] = backend
        return cls(**given)

    # ---------------------------------------------------------------- answers

    @property
    def settings(self) -> Settings:
        """All settings with their values: given, from the environment, or the default."""
        values: dict[str, Any] = {}
        for name in fields(Settings):
            if name in self._given:
                value = expanded(self._given[name], name)
                values |= _checked(Settings, {name: value}, "")
            elif (value := from_environment(name)) is not None:
                try:
                    values |= _checked(Settings, {name: value}, "")
                except ConfigError as error:
                    key = f"OMNIQ_{name.upper()}"
                    raise ConfigError(key, error.value, error.allowed, error.nearest) from None
        return Settings(**values)

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are no attributes: the settings.
        if name.startswith("_") or name not in fields(Settings):
            raise AttributeError(f"OmniQConfig has no attribute {name!r}")
        return getattr(self.settings, name)

    def get_task_queue_backend_config(self) -> StorageBackendConfig:
        """The task queue's backend."""
        return self.backend("task_queue")

    def get_result_storage_backend_config(self) -> StorageBackendConfig:
        """The result storage's backend."""
        return self.backend("result_storage")

    def get_event_storage_backend_config(self) -> StorageBackendConfig:
        """The event storage's backend."""
        return self.backend("event_storage")

    def get_schedule_storage_backend_config(self) -> StorageBackendConfig:
        """The schedule storage's backend."""
        return self.backend("schedule_storage")

    def backend(self, component: str) -> StorageBackendConfig:
        """The backend of a component, by precedence."""
        backend, _ = self._backend_and_source(component)
        uri = self.settings.fsspec_uri
        placed = {"base_dir", "fsspec_uri", "bucket", "container"} & (backend.config or {}).keys()
        if uri is None or backend.url is not None or placed:
            return backend
        if scheme_type(uri, "fsspec_uri") != backend.backend_type:
            return backend
        return StorageBackendConfig(backend.backend_type, uri, backend.config)

    def location(self, component: str) -> str | None:
        """Where a local backend of a component is: an absolute path, or ``:memory:``.

        None for a memory backend, and for those that are no files.
        """
        backend = self.backend(component)
        if backend.backend_type not in ("sqlite", "file"):
            return None
        path = self._path(backend)
        if path == ":memory:":
            return path
        return str(Path(path).expanduser().absolute())

    def describe_sources(self) -> dict[str, tuple[object, str]]:
        """Each value and where it came from; secrets are not shown."""
        settings = self.settings
        described: dict[str, tuple[object, str]] = {}
        for component in COMPONENTS:
            backend, source = self._backend_and_source(component)
            described[f"{component}_backend"] = (repr(backend), source)
        for name in fields(Settings):
            source = "default"
            if name in self._given:
                source = "config"
            elif from_environment(name) is not None:
                source = f"OMNIQ_{name.upper()}"
            described[name] = (getattr(settings, name), source)
        return described

    def _backend_and_source(self, component: str) -> tuple[StorageBackendConfig, str]:
        if component not in COMPONENTS:
            close = nearest(component, list(COMPONENTS))
            raise ConfigError("component", component, ", ".join(COMPONENTS), close)
        given: StorageBackendConfig | None = getattr(self, f"{component}_backend")
        if given is not None:
            return given, "config"
        found = _backend_from_environment(component)
        if found is not None:
            return found, f"OMNIQ_{component.upper()}_TYPE or _URL"
        if component != "task_queue":
            return self.backend("task_queue"), "task_queue"
        return StorageBackendConfig("sqlite"), "default"

    def _path(self, backend: StorageBackendConfig) -> str:
        """Where a SQLite or file backend is."""
        if backend.url is not None:
            return backend.place().location or ""
        settings = self.settings
        if backend.backend_type == "file":
            given = expanded(backend.config or {}, "config")
            if given.get("base_dir"):
                return str(given["base_dir"])
            if given.get("fsspec_uri"):
                uri = str(given["fsspec_uri"])
                return parse_url(uri, "config.fsspec_uri", "file").location or ""
        name = quote(settings.project_name, safe=" ") or "omniq"
        name = name.replace(".", "%2E") if name.strip(".") == "" else name
        base = Path(settings.base_dir)
        return str(base / (f"{name}.db" if backend.backend_type == "sqlite" else name))

    # ---------------------------------------------------------------- writing

    def to_dict(self) -> dict[str, Any]:
        """What was given explicitly, as written. `from_dict` makes an equal configuration."""
        given: dict[str, Any] = dict(self._given)
        for component in COMPONENTS:
            backend: StorageBackendConfig | None = getattr(self, f"{component}_backend")
            if backend is not None:
                given[f"{component}_backend"] = backend.to_dict()
        return given

    def to_yaml(self, path: str | os.PathLike[str] | None = None, *, secrets: bool = False) -> str:
        """The same as YAML.

        Parameters
        ----------
        path : path, optional
            A file to write it to.
        secrets : bool
            Write passwords and keys in clear. Without it they must be ``${VAR}``.

        Raises
        ------
        ConfigError
            A secret would be written in clear.
        """
        self._refuse_secrets(secrets)
        text = write_yaml(self.to_dict())
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_python(self, *, secrets: bool = False) -> str:
        """Python code that makes an equal configuration, as ``config``, with the builder."""
        self._refuse_secrets(secrets)
        settings = dict(self._given)
        project = settings.pop("project_name", None)
        lines = [f"configure({'' if project is None else repr(project)})"]
        for component in COMPONENTS:
            backend: StorageBackendConfig | None = getattr(self, f"{component}_backend")
            if backend is None:
                continue
            words = [] if backend.url is None else [repr(backend.url)]
            words += [f"{name}={value!r}" for name, value in (backend.config or {}).items()]
            method = backend.backend_type if backend.backend_type in BACKENDS else "other"
            if method == "other":
                words.insert(0, repr(backend.backend_type))
            lines.append(f".{component}.{method}({', '.join(words)})")
        if settings:
            words = [f"{name}={value!r}" for name, value in settings.items()]
            lines.append(f".settings({', '.join(words)})")
        chain = "\n    ".join([*lines, ".build()"])
        return f"from omniq_nb import configure\n\nconfig = (\n    {chain}\n)\n"

    def _refuse_secrets(self, secrets: bool) -> None:
        for component in COMPONENTS:
            backend: StorageBackendConfig | None = getattr(self, f"{component}_backend")
            found = [] if backend is None or secrets else backend.written_secrets()
            if found:
                raise ConfigError(
                    f"{component}_backend.{found[0]}",
                    "***",
                    "a secret as ${VAR}, with the value in the environment; "
                    "or secrets=True to write it in clear",
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OmniQConfig):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._given)))

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self._given.items()]
        for component in COMPONENTS:
            backend = getattr(self, f"{component}_backend")
            if backend is not None:
                shown.append(f"{component}_backend={backend!r}")
        return f"OmniQConfig({', '.join(shown)})"


def _backend(component: str, given: Given | None) -> StorageBackendConfig | None:
    where = f"{component}_backend."
    if given is None or isinstance(given, StorageBackendConfig):
        return given
    if isinstance(given, str):
        return StorageBackendConfig.from_url(given, where=where)
    if isinstance(given, Mapping):
        return StorageBackendConfig.from_dict(given, where=where)
    raise ConfigError(where[:-1], given, "a StorageBackendConfig, a mapping or a URL")


def _backend_from_environment(component: str) -> StorageBackendConfig | None:
    kind = from_environment(f"{component}_type")
    url = from_environment(f"{component}_url")
    where = f"OMNIQ_{component.upper()}: "
    if kind is not None:
        return StorageBackendConfig(kind, url, where=where)
    return None if url is None else StorageBackendConfig.from_url(url, where=where)
