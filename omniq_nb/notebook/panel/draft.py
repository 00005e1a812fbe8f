"""A configuration while it is being made: what was chosen and typed so far, right or wrong.

The fields of a backend are those of its options Struct; there is no other list. Everything is
kept as the text that was typed, secrets too, and said again only without them.

Not here: how it is asked for (`omniq_nb.notebook.panel.backends`).
"""

import json
from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.config.backend import plain
from omniq_nb.config.check import bare, checked, choices_of
from omniq_nb.config.model import COMPONENTS
from omniq_nb.config.options import BACKENDS, description, fields, is_secret
from omniq_nb.config.sources import has_variables
from omniq_nb.config.urls import EXAMPLES, LOCAL, masked, redacted
from omniq_nb.errors import ConfigError

LIKE = "like "
"""What stands before a component's name in a choice: the same backend as that one."""

URL = "url"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field to fill in, as a front end draws it.

    Attributes
    ----------
    name, label : str
        Of the option.
    help : str
        What it is about.
    kind : str
        ``"text"``, ``"secret"`` or ``"choice"``.
    choices : tuple of str
        For ``"choice"``. Nothing chosen is the default.
    hint : str
        What holds if nothing is given, or an example.
    """

    name: str
    label: str
    help: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    hint: str = ""


def fields_of(kind: str) -> list[Field]:
    """The fields of a backend type: its URL, then all its options."""
    if not _options(kind):
        return []
    about = "Where it is; ${VAR} stands for a variable of the environment."
    found = [Field(name=URL, label="URL", help=about, hint=EXAMPLES[kind])]
    for name, field in _options(kind).items():
        choices = ("yes", "no") if bare(field.type) is bool else tuple(choices_of(field.type))
        if is_secret(field):
            shape, hint = "secret", "${VAR}"
        else:
            shape, hint = ("choice" if choices else "text"), text_of(_default(field))
        label, about = name.replace("_", " "), description(field).replace("`", "")
        found.append(
            Field(
                name=name,
                label=label[0].upper() + label[1:],
                help="" if about.lower() == f"{label}." else about,
                kind=shape,
                choices=choices,
                hint=hint,
            )
        )
    return found


def _options(kind: str) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The options of a type; none are known of one that another package adds."""
    return fields(BACKENDS[kind]) if kind in BACKENDS else {}


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def text_of(value: object) -> str:
    """A value of an option as it is typed, in the form that `checked` reads."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return json.dumps(value) if value else ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class Draft:
    """The four components, and what is given for each.

    Parameters
    ----------
    config : OmniQConfig, optional
        What to begin with; unless given, what the environment says.

    Attributes
    ----------
    chosen : dict of str to str
        For each component a backend type, or ``"like task_queue"`` and so on.
    same : bool
        Whether all of them are as the task queue.
    """

    def __init__(self, config: OmniQConfig | None = None) -> None:
        self.load(OmniQConfig() if config is None else config)

    def load(self, config: OmniQConfig) -> None:
        """Begin again with this one. Its settings, besides the backends, are kept as they are."""
        backends = {f"{component}_backend" for component in COMPONENTS}
        self._settings = {
            name: item for name, item in config.to_dict().items() if name not in backends
        }
        self.chosen: dict[str, str] = {}
        # By component and type: who looks at another type and comes back finds it as it was.
        self._texts: dict[tuple[str, str], dict[str, str]] = {}
        self._foreign: dict[str, StorageBackendConfig] = {}
        first = config.backend(COMPONENTS[0])
        for component in COMPONENTS:
            backend = config.backend(component)
            if component != COMPONENTS[0] and backend == first:
                self.chosen[component] = LIKE + COMPONENTS[0]
                continue
            self.chosen[component] = backend.backend_type
            if backend.backend_type not in BACKENDS:
                self._foreign[backend.backend_type] = backend
                continue
            texts = {name: text_of(item) for name, item in (backend.config or {}).items()}
            if backend.url is not None:
                texts[URL] = backend.url
            self._texts[component, backend.backend_type] = texts
        self.same = all(choice.startswith(LIKE) for choice in list(self.chosen.values())[1:])

    # ---------------------------------------------------------------- choosing and typing

    def choices(self, component: str) -> list[str]:
        """What may be chosen for a component."""
        leading = []
        if component != COMPONENTS[0]:
            # Those with a backend of their own: nobody may end up being like himself.
            own = [c for c in COMPONENTS if c != component and not self._is_like(c)]
            leading = [LIKE + c for c in own]
        return [*leading, *BACKENDS, *self._foreign]

    def choose(self, component: str, choice: str) -> None:
        """Choose a backend type, or to be like another component.

        Raises
        ------
        ConfigError
            There is no such choice.
        """
        allowed = self.choices(component)
        if choice not in allowed:
            raise ConfigError(f"{component}_backend.backend_type", choice, ", ".join(allowed))
        if choice.startswith(LIKE):
            # Who was like this one becomes like the one that it is like now.
            for other, theirs in self.chosen.items():
                if theirs == LIKE + component:
                    self.chosen[other] = choice
        self.chosen[component] = choice

    def write(self, component: str, name: str, text: str) -> None:
        """Type something into a field; nothing at all means the default."""
        texts = self._texts.setdefault((component, self.kind(component)), {})
        if text.strip():
            texts[name] = text.strip()
        else:
            texts.pop(name, None)

    def source(self, component: str) -> str:
        """The component whose fields count for this one."""
        if self.same:
            return COMPONENTS[0]
        return self.chosen[component].removeprefix(LIKE) if self._is_like(component) else component

    def kind(self, component: str) -> str:
        """The backend type of a component."""
        return self.chosen[self.source(component)]

    def _is_like(self, component: str) -> bool:
        return self.chosen[component].startswith(LIKE)

    # ---------------------------------------------------------------- saying it again

    def shown(self, component: str) -> tuple[dict[str, str], list[str]]:
        """What stands in the fields, without secrets, and which fields hold more than is shown."""
        kind = self.kind(component)
        shown, held = {}, []
        for name, text in self._texts.get((self.source(component), kind), {}).items():
            visible = self._visible(kind, name, text)
            shown[name] = visible
            if visible != text:
                held.append(name)
        return shown, held

    def _visible(self, kind: str, name: str, text: str) -> str:
        if name == URL:
            # What is not a URL yet may end in half a password.
            whole = kind in LOCAL or _problem(kind, {URL: text}) is None
            return redacted(text) if whole else ""
        field = _options(kind)[name]
        if is_secret(field):
            return text if masked(text, secret=True) == text else ""
        try:
            value = checked(BACKENDS[kind], {name: text})[name]
        except ConfigError:
            # Half a mapping may hold half a secret.
            return "" if _is_mapping(field.type) else text
        return text if masked(plain(value)) == plain(value) else ""

    def problems(self, component: str) -> dict[str, str]:
        """What is wrong with which field, in words; ``"backend_type"`` for the choice itself."""
        if self.source(component) != component:
            return {}
        kind = self.kind(component)
        texts = self._texts.get((component, kind), {})
        alone = {name: _problem(kind, {name: text}) for name, text in texts.items()}
        found = {name: str(error) for name, error in alone.items() if error is not None}
        if found:
            return found
        error = _problem(kind, texts)
        if error is not None:
            return {_field(error, kind): str(error)}
        # Alone: what is wrong with another component is said there.
        backend = self._made(component)
        config = OmniQConfig(**self._settings, **{f"{component}_backend": backend})
        try:
            config.resolve(component)
        except ConfigError as problem:
            return {_field(problem, kind): str(problem)}
        return {}

    def config(self) -> OmniQConfig:
        """The configuration that all this makes.

        Raises
        ------
        ConfigError
            Something is wrong.
        """
        backends = {component: self._made(component) for component in COMPONENTS}
        first = backends.pop(COMPONENTS[0])
        given: dict[str, Any] = {**self._settings, f"{COMPONENTS[0]}_backend": first}
        # What is as the task queue need not be said, unless the environment says otherwise.
        inherited = OmniQConfig(**given)
        for component, backend in backends.items():
            if inherited.backend(component) != backend:
                given[f"{component}_backend"] = backend
        return OmniQConfig(**given)

    def _made(self, component: str) -> StorageBackendConfig:
        source, kind = self.source(component), self.kind(component)
        if kind in self._foreign:
            return self._foreign[kind]
        texts = self._texts.get((source, kind), {})
        error = _problem(kind, texts)
        if error is not None:
            key = f"{source}_backend.{error.key}"
            raise ConfigError(key, error.value, error.allowed, error.nearest)
        return _backend(kind, texts)


def _backend(kind: str, texts: Mapping[str, str]) -> StorageBackendConfig:
    config: dict[str, Any] = {}
    for name, text in texts.items():
        if name != URL:
            late = has_variables(text)
            config[name] = text if late else plain(checked(BACKENDS[kind], {name: text})[name])
    return StorageBackendConfig(kind, texts.get(URL), config or None)


def _problem(kind: str, texts: Mapping[str, str]) -> ConfigError | None:
    """What is wrong with these texts. It quotes no text that may hold a part of a secret."""
    try:
        _backend(kind, texts)
    except ConfigError as error:
        name = _field(error, kind)
        if (kind not in LOCAL) if name == URL else _is_mapping(_options(kind)[name].type):
            return ConfigError(error.key, "***", error.allowed, error.nearest)
        return error
    return None


def _field(error: ConfigError, kind: str) -> str:
    """The field that an error is about."""
    key = error.key.rpartition("_backend.")[2].removeprefix("config.").partition(".")[0]
    return key if key in _options(kind) else URL


def _is_mapping(annotation: object) -> bool:
    return get_origin(bare(annotation)) is Mapping
