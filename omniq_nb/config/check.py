"""Given values against the fields of an options Struct."""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from omniq_nb.config.options import Options, description, fields, is_secret
from omniq_nb.config.sources import nearest
from omniq_nb.config.urls import masked
from omniq_nb.errors import ConfigError

_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}


def checked(options: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """Given values converted to the types of their fields; texts as an environment has them.

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
            raise ConfigError(str(name), "an unknown key", allowed, nearest(name, known))
        converted[name] = _converted(value, known[name])
    return converted


def _converted(value: Any, field: msgspec.structs.FieldInfo) -> Any:
    try:
        converted = msgspec.convert(_parsed(value, field.type), field.type, strict=False)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise msgspec.ValidationError("Expected a finite number")
    except msgspec.ValidationError as error:
        shown = masked(value, is_secret(field))
        choices = choices_of(field.type)
        problem = str(error).partition(" - at")[0]
        allowed = ", ".join(choices) or f"{description(field)} {problem}"
        close = nearest(value, choices) if isinstance(value, str) else None
        raise ConfigError(field.name, shown, allowed, close) from None
    return converted


def _parsed(value: Any, annotation: Any) -> Any:
    """What a text means where something else than a text is expected."""
    annotation = bare(annotation)
    items = get_args(annotation)
    if isinstance(value, Mapping):
        return {key: _parsed(item, items[1]) if items else item for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if annotation is bool:
        return _BOOLEANS.get(value.lower(), value)
    origin = get_origin(annotation)
    if origin is tuple:
        return [part.strip() for part in value.split(",") if part.strip()]
    if origin is Mapping:
        try:
            parsed = json.loads(value)
        except ValueError:
            return value  # the conversion says what is wrong
        return _parsed(parsed, annotation) if isinstance(parsed, dict) else parsed
    return {choice.lower(): choice for choice in choices_of(annotation)}.get(value.lower(), value)


def bare(annotation: Any) -> Any:
    """A type without its metadata."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return annotation


def choices_of(annotation: Any) -> list[str]:
    """The words of a ``Literal``, also where None is allowed instead."""
    annotation = bare(annotation)
    literals = [annotation, *get_args(annotation)]
    return [word for kind in literals if get_origin(kind) is Literal for word in get_args(kind)]
