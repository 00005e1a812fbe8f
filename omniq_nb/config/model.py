"""`OmniQConfig`: what a user chose for all components, and what follows from it.

Precedence of a setting: given explicitly, then the environment, then the default. Of a
component's backend: given explicitly, then the environment, then the task queue's backend,
then SQLite. What is written ``${VAR}`` stays so in the object, in YAML and in Python, and is
read from the environment each time it is needed.

Not here: a single backend (`omniq_nb.config.backend`), and what options there are
(`omniq_nb.config.options`).
"""

import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self
from urllib.parse import quote

from omniq_nb.config.backend import StorageBackendConfig, absolute, plain
from omniq_nb.config.check import checked
from omniq_nb.config.options import BACKENDS, BackendOptions, Settings, fields
from omniq_nb.config.sources import (
    check_variables,
    expanded,
    from_environment,
    has_variables,
    nearest,
    read_text,
    read_yaml,
    within,
    write_yaml,
)
from omniq_nb.config.urls import EXAMPLES, masked, parse_url, scheme_type
from omniq_nb.display import Shown
from omniq_nb.errors import ConfigError

COMPONENTS = ("task_queue", "result_storage", "event_storage", "schedule_storage")
"""The four components, in the order in which they are asked for."""

_ALIASES = {"default_ttl": "task_ttl"}
_FOLDERS = ("file", "s3", "gcs", "azure")
"""The types whose default place ``fsspec_uri`` may be."""

_NEEDS_PLACE = {"redis": "host", "postgres": "host", "nats": "servers"}
_NEEDS_BUCKET = {"s3": "bucket", "gcs": "bucket", "azure": "container"}


class Resolved(NamedTuple):
    """A component's backend with everything known: equal ones are one place, and are shared.

    `location` is an absolute path, ``:memory:``, the name of a memory space, or None; `options`
    are None for a type that another package adds, which reads its `backend` itself.
    """

    backend_type: str
    location: str | None
    options: BackendOptions | None
    backend: StorageBackendConfig | None


Given = StorageBackendConfig | Mapping[str, Any] | str | os.PathLike[str]


class OmniQConfig(Shown):
    """The configuration of one client: four backends, and the settings of the library.

    It never changes. Settings are attributes too: ``config.retry_attempts``.

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
    _given: dict[str, Any]

    def __init__(
        self,
        *,
        task_queue_backend: Given | None = None,
        result_storage_backend: Given | None = None,
        event_storage_backend: Given | None = None,
        schedule_storage_backend: Given | None = None,
        **settings: Any,
    ) -> None:
        vars(self).update(
            task_queue_backend=_backend("task_queue", task_queue_backend),
            result_storage_backend=_backend("result_storage", result_storage_backend),
            event_storage_backend=_backend("event_storage", event_storage_backend),
            schedule_storage_backend=_backend("schedule_storage", schedule_storage_backend),
            _given=_checked_settings(settings),
        )

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
            text = from_environment(name)
            if text is not None:
                value = _setting(name, text, f"OMNIQ_{name.upper()}")
                given[name] = text if has_variables(text) else value
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
                values[name] = _setting(name, self._given[name], name)
            elif (text := from_environment(name)) is not None:
                values[name] = _setting(name, text, f"OMNIQ_{name.upper()}")
        return Settings(**values)

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are no attributes: the settings.
        if name not in fields(Settings):
            raise AttributeError(f"OmniQConfig has no attribute {name!r}")
        return getattr(self.settings, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *fields(Settings)]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        # An attribute set on the object would be seen by `getattr`, but not by `settings`.
        raise AttributeError(f"OmniQConfig does not change; make a new one with {name}=...")

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
        with within(f"{component}_backend."):
            return backend.resolved_type()

    def resolve(self, component: str) -> Resolved:
        """Where a component's backend is, default places included, and its options.

        Raises
        ------
        ConfigError
            A value is wrong, a variable is not set, or a server or bucket is not named.
        """
        backend = self.backend(component)
        kind = backend.backend_type
        if kind not in BACKENDS:
            return Resolved(kind, None, None, backend)
        with within(f"{component}_backend."):
            options = backend.options()
            if kind == "memory":
                return Resolved(
                    kind, backend.place().location if backend.url else None, options, None
                )
            if kind in _NEEDS_PLACE and not backend.url:
                _require_option(_NEEDS_PLACE[kind], backend)
            said = backend.path()
        uri = self.settings.fsspec_uri
        if said is None and uri is not None and scheme_type(uri, "fsspec_uri") == kind:
            if kind == "file":
                said = absolute(parse_url(uri, "fsspec_uri", kind).location or "", "fsspec_uri")
            elif backend.url is None and not (backend.config or {}).get(_NEEDS_BUCKET[kind]):
                backend = StorageBackendConfig(kind, uri, backend.config)
                options = backend.options()
        if kind in _NEEDS_BUCKET and not backend.url:
            with within(f"{component}_backend."):
                _require_option(_NEEDS_BUCKET[kind], backend)
        if kind in ("sqlite", "file") and said is None:
            said = self._default_path(kind)
        return Resolved(kind, said, options, None)

    def location(self, component: str) -> str | None:
        """Where a local backend of a component is, as `Resolved` has it; None for all others."""
        return self.resolve(component).location

    def describe_sources(self) -> dict[str, tuple[object, str]]:
        """Each value and where it came from; secrets are not shown."""
        settings = dict(self.settings.__rich_repr__())
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
            described[name] = (settings[name], source)
        return described

    def _backend_and_source(self, component: str) -> tuple[StorageBackendConfig, str]:
        if component not in COMPONENTS:
            close = nearest(component, COMPONENTS)
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

    def _default_path(self, kind: str) -> str:
        settings = self.settings
        name = _file_name(settings.project_name)
        path = Path(settings.base_dir) / (f"{name}.db" if kind == "sqlite" else name)
        return absolute(str(path), "base_dir")

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
            Write passwords and keys in clear, into a file that only its owner can read. Without
            it they must be ``${VAR}``.

        Raises
        ------
        ConfigError
            A secret would be written in clear.
        """
        self._refuse_secrets(secrets)
        text = write_yaml(self.to_dict())
        if path is not None:
            file = Path(path)
            if secrets:
                file.touch(mode=0o600)
                file.chmod(0o600)
            file.write_text(text, encoding="utf-8")
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
            options = backend.config or {}
            words = [] if backend.url is None else [repr(backend.url)]
            method = backend.backend_type
            if method not in BACKENDS:
                method = "other"
                words = [repr(backend.backend_type), *words]
            if all(name.isidentifier() for name in options):
                words += [f"{name}={value!r}" for name, value in options.items()]
            else:
                words.append(f"**{options!r}")
            lines.append(f".{component}.{method}({', '.join(words)})")
        if settings:
            words = [f"{name}={value!r}" for name, value in settings.items()]
            lines.append(f".settings({', '.join(words)})")
        chain = "\n    ".join([*lines, ".build()"])
        return f"from omniq_nb import configure\n\nconfig = (\n    {chain}\n)\n"

    def _refuse_secrets(self, secrets: bool) -> None:
        if secrets:
            return
        found = [name for name, value in self._given.items() if masked(value) != value]
        for component in COMPONENTS:
            backend: StorageBackendConfig | None = getattr(self, f"{component}_backend")
            if backend is not None:
                found += [f"{component}_backend.{key}" for key in backend.written_secrets()]
        if found:
            raise ConfigError(
                found[0],
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
        shown = [f"{name}={masked(value)!r}" for name, value in self._given.items()]
        for component in COMPONENTS:
            backend = getattr(self, f"{component}_backend")
            if backend is not None:
                shown.append(f"{component}_backend={backend!r}")
        return f"OmniQConfig({', '.join(shown)})"


def _signature() -> inspect.Signature:
    """The constructor's, with every setting by name, as an editor completes them."""
    given = [
        parameter
        for parameter in inspect.signature(OmniQConfig.__init__).parameters.values()
        if parameter.name.endswith("_backend")
    ]
    settings = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type)
        for name, field in fields(Settings).items()
    ]
    return inspect.Signature([*given, *settings])


OmniQConfig.__signature__ = _signature()  # type: ignore[attr-defined]


def _checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their own names, as written. None means not given, where it is no value."""
    known = fields(Settings)
    settings: dict[str, Any] = {}
    for alias, value in given.items():
        name = _ALIASES.get(alias, alias)
        if name not in known:
            keys = [*known, *(f"{component}_backend" for component in COMPONENTS)]
            raise ConfigError(name, "an unknown key", ", ".join(keys), nearest(name, keys))
        if name in settings:
            other = next(key for key, own in _ALIASES.items() if own == name)
            raise ConfigError(alias, masked(value), f"one of {name} and {other}, not both")
        if value is None and known[name].default is not None:
            continue
        settings[name] = plain(value)
        check_variables(settings[name], name)
        if not has_variables(settings[name]):
            _setting(name, settings[name], alias)
    return {name: settings[name] for name in known if name in settings}


def _setting(name: str, value: Any, key: str) -> Any:
    """The value of a setting, which the user knows as `key`."""
    try:
        value = checked(Settings, {name: expanded(value, name)})[name]
        if name == "fsspec_uri" and value is not None and scheme_type(value, name) not in _FOLDERS:
            raise ConfigError(name, masked(value), "a URI of files, S3, GCS or Azure")
    except ConfigError as error:
        raise ConfigError(key, error.value, error.allowed, error.nearest) from None
    return value


def _backend(component: str, given: Given | None) -> StorageBackendConfig | None:
    key = f"{component}_backend"
    if given is None or isinstance(given, StorageBackendConfig):
        return given
    with within(f"{key}."):
        if isinstance(given, str | os.PathLike):
            return StorageBackendConfig.from_url(plain(given))
        if isinstance(given, Mapping):
            return StorageBackendConfig.from_dict(given)
    raise ConfigError(key, masked(given), "a StorageBackendConfig, a mapping or a URL")


def _backend_from_environment(component: str) -> StorageBackendConfig | None:
    kind = from_environment(f"{component}_type")
    url = from_environment(f"{component}_url")
    with within(f"OMNIQ_{component.upper()}: "):
        if kind is not None:
            return StorageBackendConfig(kind, url)
        return None if url is None else StorageBackendConfig.from_url(url)


def _require_option(name: str, backend: StorageBackendConfig) -> None:
    if not (backend.config or {}).get(name):
        example = EXAMPLES[backend.backend_type]
        raise ConfigError("url", None, f"{example}; or config with {name!r}")


def _file_name(project: str) -> str:
    """A project's name as the name of a file: what is no letter or digit is written ``%2F``."""
    name = re.sub(r"[^\w .+@=,-]", lambda match: quote(match[0], safe=""), project)
    return f"%2E{name[1:]}" if name.startswith(".") else name
