"""What a function takes along, and what a value is made of: each part with a name for people.

Not here: how it is packed (`omniq_nb.codec.functions`), and which variables a cell reads
(`omniq_nb.notebook.reads`).
"""

import dis
from collections.abc import Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType

ARROW = " -> "
"""Between a thing and its part, in words for people."""

LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_NAME"})
"""The instructions that look a name up among a module's."""


def globals_read(function: FunctionType) -> set[str]:
    """The global names that a function and the functions within it may read."""
    return set(names_loaded(function.__code__))


def names_loaded(code: CodeType) -> Iterator[str]:
    """The same for code, each name as often as it is there."""
    for step in dis.get_instructions(code):
        if step.opname in LOADS and not of_any_module(step.argval):
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from names_loaded(part)


def of_any_module(name: str) -> bool:
    """Whether it is a name like `__name__`, which every module and class has for itself."""
    return name.startswith("__") and name.endswith("__")


def modules_imported(code: CodeType) -> Iterator[str]:
    """The modules that code imports when it runs, but for those relative to its own."""
    steps = list(dis.get_instructions(code))
    for level, step in zip([None, None, *steps], steps, strict=False):
        # The level is loaded two instructions before.
        if step.opname == "IMPORT_NAME" and (level is None or not level.argval):
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from modules_imported(part)


def unwrapped(value: object) -> FunctionType | None:
    """The function below decorators of ours and of functools. None: it is no function."""
    while not isinstance(value, FunctionType):
        inner = value.func if isinstance(value, partial) else _wrapped(value)
        if inner is None:
            return None
        value = inner
    return value


def _wrapped(value: object) -> object:
    # Not of modules and classes, whose attributes may be anything.
    if isinstance(value, ModuleType | type):
        return None
    return getattr(value, "__dict__", {}).get("__wrapped__")


def parts(value: object) -> Iterator[tuple[str, object]]:
    """What a value is made of: of a function the variables that it takes along."""
    if isinstance(value, dict):
        yield from ((f"key {key!r}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {number}", part) for number, part in enumerate(value))
    elif isinstance(value, FunctionType):
        yield from _captured(value)
    elif isinstance(value, partial):
        yield "function", value.func
        yield from ((f"argument {number}", part) for number, part in enumerate(value.args, 1))
        yield from ((f"argument {name!r}", part) for name, part in value.keywords.items())
    elif isinstance(attributes := getattr(value, "__dict__", None), dict):
        yield from ((f"attribute `{name}`", part) for name, part in attributes.items())


def _captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    code, variables = function.__code__, function.__globals__
    for name in sorted(globals_read(function)):
        if name in variables:
            yield f"global `{name}`", variables[name]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != CellType():  # else it has no value yet
            yield f"variable `{name}`", cell.cell_contents
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    for name, default in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True):
        yield f"default `{name}`", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default `{name}`", default
