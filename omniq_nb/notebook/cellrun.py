"""The worker's side of `%%task`: runs a cell's code among the variables that came along.

It is loaded wherever a cell runs, so it needs nothing of a notebook.

Not here: what comes along (`omniq_nb.notebook.travel`), and where the cell's card is drawn
(`omniq_nb.notebook.cells`).
"""

import ast
import builtins
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any


class Luggage:
    """What a cell takes along.

    Parameters
    ----------
    label : str
        What tracebacks call the cell.
    variables : dict
        By name.
    anchor : function
        Any function of the notebook: the cell runs among its globals. Those are shared by all
        functions of the notebook that travel in the same pickle, so they see each other's
        variables and the cell's, as they do at home.
    outputs : sequence of str
        The names that are wanted back.
    """

    def __init__(
        self,
        label: str,
        variables: dict[str, object],
        anchor: FunctionType,
        outputs: Sequence[str],
    ) -> None:
        self.label = label
        self.variables = variables
        self.anchor = anchor
        self.outputs = tuple(outputs)


UNPACKED: "ContextVar[list[Parcel] | None]" = ContextVar("omniq_nb.unpacked", default=None)
"""Where parcels that are opened now are collected."""


@dataclass(frozen=True)
class Parcel:
    """What a cell gives back: its value, and variables. Opened elsewhere, it is just the value."""

    value: object
    variables: Mapping[str, object]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self.value, self.variables)


def _unpack(value: object, variables: Mapping[str, object]) -> object:
    collected = UNPACKED.get()
    if collected is not None:
        collected.append(Parcel(value, variables))
    return value


def run_cell(source: str, luggage: Luggage) -> object:
    """Run a cell: the function of its task.

    Parameters
    ----------
    source : str
        The cell's code.
    luggage : Luggage
        What it needs.

    Returns
    -------
    object
        The value of its last expression, or None; with the wanted variables, a `Parcel`.
    """
    names = luggage.anchor.__globals__
    names.update(luggage.variables)
    if not hasattr(builtins, "display"):
        names.setdefault("display", print)  # no kernel here
    body, last = compiled(source, luggage.label)
    if any(code is not None and code.co_flags & inspect.CO_COROUTINE for code in (body, last)):
        return _awaited(body, last, names, luggage.outputs)
    with _displays_as_text():
        eval(body, names)
        value = None if last is None else eval(last, names)
    return _packed(value, names, luggage.outputs)


async def _awaited(
    body: CodeType, last: CodeType | None, names: dict[str, Any], outputs: Sequence[str]
) -> object:
    with _displays_as_text():
        await _evaluated(body, names)
        value = None if last is None else await _evaluated(last, names)
    return _packed(value, names, outputs)


async def _evaluated(code: CodeType, names: dict[str, Any]) -> object:
    value: Any = eval(code, names)
    return await value if code.co_flags & inspect.CO_COROUTINE else value


def compiled(source: str, label: str) -> tuple[CodeType, CodeType | None]:
    """A cell's statements, and its last expression if it ends with one.

    Line 1 is the line of the magic, so the numbers are those of the notebook's cell.

    Raises
    ------
    SyntaxError
        It is no Python.
    """
    text = "\n" + source
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    file = f"<{label} {digest}>"
    lines = text.splitlines(keepends=True)
    linecache.cache[file] = (len(text), None, lines, file)  # for tracebacks
    tree = ast.parse(text, file)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(tree, file, "exec", flags, dont_inherit=True)
    if not isinstance(last, ast.Expr):
        return code, None
    return code, compile(ast.Expression(last.value), file, "eval", flags, dont_inherit=True)


def _packed(value: object, names: Mapping[str, object], outputs: Sequence[str]) -> object:
    if not outputs:
        return value
    return Parcel(value, {name: names[name] for name in outputs if name in names})


@contextmanager
def _displays_as_text() -> Iterator[None]:
    """Print what this thread displays: a kernel would show it under whichever cell ran last."""
    core = sys.modules.get("IPython.core.getipython")
    publisher: Any = getattr(core.get_ipython() if core else None, "display_pub", None)
    if not hasattr(publisher, "register_hook"):  # only a kernel's has
        yield
        return
    publisher.register_hook(_print_display)
    try:
        yield
    finally:
        publisher.unregister_hook(_print_display)


def _print_display(message: Mapping[str, Any]) -> None:
    text = message["content"].get("data", {}).get("text/plain")
    if text is not None:
        sys.stdout.write(f"{text}\n")
