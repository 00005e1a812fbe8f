"""Where a task comes from and what it runs in: notebook, cell, code, environment. All of it cheap.

It goes into the events: `enqueued` tells notebook, cell, code and the environment of whoever
submitted, `worker_started` the environment of the worker, each by its hash; what a hash stands
for is told once, by an event of the type `environment`.
"""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec

from omniq_nb.models.event import Event, EventType

FRESH = 5.0
"""Seconds for which an environment is taken to be what it was. Packages, commits and the working
directory change, but to ask for the directory alone takes a good part of a submission."""


class Environment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What code runs in.

    Attributes
    ----------
    python, platform : str
        Versions of Python and of the system.
    packages : mapping
        Name to version of what is installed.
    commit : str or None
        The commit of the git repository around the working directory.
    """

    python: str
    platform: str
    packages: dict[str, str]
    commit: str | None = None


class Described(msgspec.Struct, frozen=True):
    """An environment and the short word for it."""

    hash: str
    json: str

    def event(self) -> Event:
        """What tells what the hash stands for. Its id makes repeating it harmless."""
        return Event(
            id=f"environment:{self.hash}",
            type=EventType.ENVIRONMENT,
            at=time.time(),
            message=self.hash,
            data=self.json,
        )


def environment() -> Described:
    """The environment of this process, as it is in its directory."""
    return _environment(time.monotonic() // FRESH)


def working_directory() -> str:
    """Where this process is; empty if that folder is gone."""
    try:
        return os.getcwd()  # noqa: PTH109  a path costs more than all else
    except FileNotFoundError:
        return ""


def origin(function: Callable[..., object]) -> str:
    """Where a call of this function is submitted, as the JSON of its `enqueued` event."""
    return _told(getattr(function, "__code__", None), *_notebook(), environment().hash)


@lru_cache(256)
def _told(code: CodeType | None, notebook: str | None, cell: str | None, environment: str) -> str:
    told = {
        "notebook": notebook,
        "cell": cell,
        "code": code_version(code) if isinstance(code, CodeType) else None,
        "environment": environment,
    }
    return msgspec.json.encode({key: value for key, value in told.items() if value}).decode()


def code_version(code: CodeType) -> str:
    """A hash of what a function does: the same after it was run, moved or formatted anew."""
    digest = blake2b(digest_size=8)
    _update(digest.update, code)
    return digest.hexdigest()


def _update(update: Callable[[bytes], None], code: CodeType) -> None:
    update(code.co_code)
    update(repr((code.co_names, code.co_varnames[: code.co_argcount])).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _update(update, constant)
        else:
            # The order within a set is another one in each process.
            known = sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
            update(repr(known).encode())


@lru_cache(1)
def _environment(moment: float) -> Described:
    known = Environment(
        python=platform.python_version(),
        platform=f"{sys.platform} {platform.machine()}",
        packages=_packages(sys.path),
        commit=_commit(Path(working_directory())),
    )
    data = msgspec.json.encode(known)
    return Described(blake2b(data, digest_size=8).hexdigest(), data.decode())


def _packages(path: Iterable[str]) -> dict[str, str]:
    """Names and versions as the folders of their metadata tell: reading these takes 100 ms."""
    found: dict[str, str] = {}
    for folder in path:
        # Archives, and folders that do not exist, have nothing to tell.
        with contextlib.suppress(OSError):
            for entry in Path(folder).glob("*.dist-info"):
                package, _, version = entry.stem.rpartition("-")
                found.setdefault(package.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def _commit(folder: Path) -> str | None:
    """The commit that is checked out around this folder, as git's files tell."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        try:
            if git.is_file():  # a worktree or a submodule
                git = parent / git.read_text().removeprefix("gitdir:").strip()
            head = (git / "HEAD").read_text().strip()
        except OSError:
            continue
        return _resolved(git, head)
    return None


def _resolved(git: Path, head: str) -> str | None:
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    try:
        common = (git / (git / "commondir").read_text().strip()).resolve()
    except OSError:
        common = git
    with contextlib.suppress(OSError):
        return (common / name).read_text().strip()
    with contextlib.suppress(OSError):
        packed = (common / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    return None


def shell_here() -> Any:
    """IPython's shell, if there is one in this process. IPython has no types."""
    core: Any = sys.modules.get("IPython.core.getipython")
    return None if core is None else core.get_ipython()


def _notebook() -> tuple[str | None, str | None]:
    """The notebook or script that runs here, and which of its cells."""
    shell = shell_here()
    main = vars(sys.modules["__main__"])
    if shell is None:
        return main.get("__file__"), None
    return notebook_path(shell), cell_id(shell) or f"In[{shell.execution_count}]"


def notebook_path(shell: Any) -> str | None:
    """The notebook's file, where the front end tells it."""
    told = shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    return told if isinstance(told, str) else None


def cell_id(shell: Any) -> str | None:
    """The id of the cell that is run now in the notebook's file, where the front end tells it."""
    parent = getattr(shell, "get_parent", lambda: None)()
    metadata = parent.get("metadata") if isinstance(parent, Mapping) else None
    cell = metadata.get("cellId") if isinstance(metadata, Mapping) else None
    return cell if isinstance(cell, str) else None
