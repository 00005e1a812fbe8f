"""Where values come from: YAML text, the environment, ``${VAR}`` in any text.

Not here: what the values mean (`omniq_nb.config.model`), and URLs (`omniq_nb.config.urls`).
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from omniq_nb.errors import ConfigError

PREFIX = "OMNIQ_"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_BARE_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_USER = re.compile(r"(?<=[/,])((?:\$\{[^{}]*\}|[^/?#,@])+)@")
"""What stands before the host in a URL, or in one of several in a list."""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    close = difflib.get_close_matches(str(word), list(known), 1)
    return close[0] if close else None


@contextmanager
def within(where: str) -> Iterator[None]:
    """Say in a `ConfigError` where the key is: ``url`` becomes ``task_queue_backend.url``."""
    try:
        yield
    except ConfigError as error:
        key = where + error.key
        raise ConfigError(key, error.value, error.allowed, error.nearest) from None


# ---------------------------------------------------------------- ${VAR}


def has_variables(value: object) -> bool:
    """Whether a text somewhere in this value has something to expand."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, Mapping):
        return any(map(has_variables, value.values()))
    return isinstance(value, list | tuple) and any(map(has_variables, value))


def without_variables(text: str) -> str:
    """A text with something harmless for each variable, to look at its form."""
    return _VARIABLE.sub("x", text)


def only_variables(text: str) -> bool:
    """Whether nothing is written out: all is ``${VAR}``, without a default, or nothing at all."""
    return not _BARE_VARIABLE.sub("", text)


def expanded(value: Any, key: str) -> Any:
    """A value with ``${VAR}`` and ``${VAR:-default}`` replaced in all its texts.

    ``$${`` stands for ``${``. As in a shell, a default also replaces an empty variable.

    Raises
    ------
    ConfigError
        A variable is not set and has no default, or is not well-formed.
    """
    if isinstance(value, str):
        check_variables(value, key)
        return _VARIABLE.sub(lambda match: _variable(match, key), value)
    if isinstance(value, Mapping):
        return {name: expanded(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [expanded(item, f"{key}[{i}]") for i, item in enumerate(value)]
    return value


def expanded_url(url: str, key: str) -> str:
    """The same for a URL. A variable before the ``@`` holds a name or password as it is."""
    check_variables(url, key)

    def escaped(match: re.Match[str]) -> str:
        return _VARIABLE.sub(lambda v: quote(_variable(v, key), safe=""), match[1]) + "@"

    return str(expanded(_USER.sub(escaped, url), key))


def check_variables(value: object, key: str) -> None:
    """Refuse a ``${`` in any text of a value that is not the start of a variable."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_variables(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_variables(item, f"{key}[{i}]")
    elif isinstance(value, str) and "${" in _VARIABLE.sub("", value):
        allowed = "${VAR} or ${VAR:-default}, without braces in the default; $${ for ${ itself"
        raise ConfigError(key, "${...", allowed)


def _variable(match: re.Match[str], key: str) -> str:
    name, default = match.groups()
    if name is None:
        return "${"
    value = os.environ.get(name)
    if default is not None:
        return value or str(default)
    if value is None:
        allowed = f"the environment variable {name} to be set, or ${{{name}:-default}}"
        raise ConfigError(key, match[0], allowed)
    return value


# ---------------------------------------------------------------- YAML


def read_yaml(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; an empty text is an empty one."""
    try:
        _refuse_duplicates(yaml.compose(text, yaml.SafeLoader), "", (), set())
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the text"
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError("yaml", where, f"well-formed YAML ({problem})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("yaml", type(content).__name__, "a mapping at the top")
    return content


def _refuse_duplicates(
    node: yaml.Node | None, where: str, above: tuple[int, ...], done: set[int]
) -> None:
    """YAML itself takes the last one of equal keys, which hides a mistake."""
    if id(node) in above:
        raise ConfigError(where, "an alias", "a value that does not contain itself")
    if node is None or id(node) in done:
        return
    done.add(id(node))
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _refuse_duplicates(item, f"{where}[{i}]", above, done)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key_node, item in node.value:
        path = f"{where}.{key_node.value}" if where else str(key_node.value)
        if path in seen:
            line = key_node.start_mark.line + 1
            raise ConfigError(path, f"the key again in line {line}", "each key once")
        seen.add(path)
        _refuse_duplicates(item, path, above, done)


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, not once with an anchor."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_yaml(content: Mapping[str, object]) -> str:
    """A mapping as YAML, in its own order.

    Raises
    ------
    ConfigError
        A value is none that YAML can hold.
    """
    try:
        text: str = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as error:
        kind = type(error.args[-1]).__name__
        allowed = "texts, numbers, true or false, and lists and mappings of these"
        raise ConfigError("yaml", f"a {kind}", allowed) from None
    return text


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
    return os.environ.get(PREFIX + name.upper(), "").strip() or None
