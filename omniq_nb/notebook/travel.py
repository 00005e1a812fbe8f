"""What a cell takes along to a worker: the variables that it reads, and those they need.

What cannot travel, or is so large that nobody can mean it, is told in words before anything is
submitted.

Not here: which names code reads (`omniq_nb.notebook.reads`), and running it
(`omniq_nb.notebook.cellrun`).
"""

import ast
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import FunctionType

from omniq_nb.codec import type_name
from omniq_nb.codec.captured import globals_read, unwrapped
from omniq_nb.codec.pickles import weigh
from omniq_nb.errors import ConfigError, NotSerializable
from omniq_nb.notebook.cellrun import Luggage, compiled
from omniq_nb.notebook.reads import names_read

LIMIT = 10_000_000
"""Bytes of a variable that travel without being asked for."""


def parsed(source: str, cell: str) -> ast.Module:
    """A cell's code, if it can be run without a notebook.

    Parameters
    ----------
    source : str
        The cell below its first line, with IPython's own syntax turned into Python.
    cell : str
        The same as the user wrote it.

    Raises
    ------
    ConfigError
        It is no Python, or needs the notebook.
    """
    try:
        tree = ast.parse("\n" + source)
        compiled(source, "cell")  # finds what parsing does not: `return` outside of a function
    except SyntaxError as error:
        number = error.lineno or 2
        raise ConfigError(f"line {number}", _line(cell, number), f"Python ({error.msg})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "get_ipython":
            code = _line(cell, node.lineno)
            allowed = "plain Python: magics and ! commands are the notebook's; use subprocess.run"
            raise ConfigError(f"line {node.lineno}", code, allowed)
    return tree


def _line(cell: str, number: int) -> str:
    """A line of the cell, of which the magic's is the first."""
    lines = ["", *cell.splitlines(), ""]
    return lines[min(number, len(lines)) - 1].strip()


def luggage(
    tree: ast.Module,
    names: dict[str, object],
    label: str,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Luggage:
    """Pack what a cell needs.

    Parameters
    ----------
    tree : ast.Module
        The cell, as `parsed` gave it.
    names : dict
        The notebook's variables.
    label : str
        What to call the cell.
    inputs : sequence of str
        Names that it needs besides, or that travel however large they are.
    outputs : sequence of str
        Names that are wanted back.

    Raises
    ------
    NotSerializable
        Some variables cannot travel, or are too large: all of them are named.
    ConfigError
        There is no such variable.
    """
    for name in inputs:
        if name not in names:
            raise ConfigError("-i", name, "the names of variables that the notebook has")
    users = _needed({*names_read(tree), *inputs}, names)
    # A function takes what it reads along, so what is wrong with that is told first.
    functions = [name for name in users if _read_by(names[name], names)]
    for group in ([name for name in users if name not in functions], functions):
        troubles = [
            f"- {_called(name, names[name], users[name])}: {trouble}"
            for name in group
            if (trouble := _trouble(name, names[name], name in inputs or name in functions))
        ]
        if troubles:
            raise NotSerializable("\n".join(["this cell was not submitted:", *troubles]))
    anchor = FunctionType((lambda: None).__code__, names)
    return Luggage(label, {name: names[name] for name in users}, anchor, outputs)


def _needed(read: Collection[str], names: Mapping[str, object]) -> dict[str, str]:
    """The variables that are read, with those that functions of the notebook read in turn.

    With each goes the name of the function that needs it; empty for the cell itself.
    """
    users: dict[str, str] = {}
    todo = [(name, "") for name in sorted(read)]
    while todo:
        name, user = todo.pop(0)
        if name in names and name not in users:
            users[name] = user
            todo += [(inner, name) for inner in sorted(_read_by(names[name], names))]
    return users


def _read_by(value: object, names: Mapping[str, object]) -> Iterable[str]:
    """What a function of the notebook reads, below decorators of ours and of functools."""
    function = unwrapped(value)
    if function is None or function.__globals__ is not names:
        return ()
    return globals_read(function)


def _called(name: str, value: object, user: str) -> str:
    needed = f", needed by {user}" if user else ""
    return f"{name} ({type_name(value)}{needed})"


def _trouble(name: str, value: object, any_size: bool) -> str | None:
    """Why a variable cannot travel, and what to do about it."""
    try:
        weight = weigh(value, name, LIMIT)
    except NotSerializable as error:
        return str(error)
    if any_size or weight.size <= LIMIT:
        return None
    size = f"{weight.size / 1e6:,.0f} MB" if weight.exact else f"more than {LIMIT / 1e6:.0f} MB"
    return (
        f"it is {size}, and would be stored with the task. Load it inside the cell, take the "
        f"part that is needed, or insist: -i {name}"
    )
