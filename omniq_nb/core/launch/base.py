"""What is asked of a worker that is launched outside of this process, and of a launcher.

Not here: the life of such a worker (`omniq_nb.core.launch.serve`).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict

import msgspec

from omniq_nb.config import COMPONENTS, OmniQConfig
from omniq_nb.config.backend import plain
from omniq_nb.config.sources import expanded, expanded_url, nearest
from omniq_nb.core.engine import Engine, identity_of
from omniq_nb.core.executors import EXECUTORS
from omniq_nb.core.options import Seconds, positive_seconds
from omniq_nb.core.provenance import working_directory
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import WorkerInfo

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class WorkerOptions(TypedDict, total=False):
    """The further keyword arguments of ``oq.workers.start`` for launched workers.

    Attributes
    ----------
    isolation : str
        What runs a worker's tasks, as the kinds of workers in this process: ``"process"``
        unless given, so that a task that crashes or is cancelled costs itself alone.
    concurrency : int
        Tasks that each worker runs at the same time; 1 unless given.
    idle_timeout : seconds or timedelta
        After so long without a task a worker ends.
    max_tasks : int
        After so many tasks a fresh worker takes its place.
    max_memory : int or str
        When a worker and its children use more, bytes or ``"2 GB"``, a fresh one takes its
        place.
    """

    isolation: str
    concurrency: int
    idle_timeout: Seconds | None
    max_tasks: int | None
    max_memory: int | str | None


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a launched worker shall do. There is no secret in it.

    Attributes
    ----------
    queues : tuple of str
        In the order in which it asks them.
    isolation : str
        What runs its tasks: a key of `omniq_nb.core.executors.EXECUTORS`.
    concurrency : int
        Tasks at the same time.
    idle_timeout : float or None
        Seconds without a task after which it ends.
    max_tasks : int or None
        Tasks after which a fresh worker replaces it.
    max_memory : int or None
        Bytes, of its process and those below, beyond which a fresh worker replaces it.
    """

    queues: tuple[str, ...]
    isolation: str = "process"
    concurrency: int = 1
    idle_timeout: float | None = None
    max_tasks: int | None = None
    max_memory: int | None = None

    @classmethod
    def checked(
        cls, queues: tuple[str, ...], options: Mapping[str, object]
    ) -> "tuple[WorkerOrder, dict[str, object]]":
        """The order that these words of a user mean, and the words that are not for it.

        Raises
        ------
        ConfigError
            One of them has a wrong value.
        """
        given = {name: value for name, value in options.items() if value is not None}
        known = {name: _CHECKS[name](name, given.pop(name)) for name in _CHECKS if name in given}
        return msgspec.convert({"queues": queues, **known}, cls), given


class Launcher(ABC):
    """Has workers run somewhere else, and finds them again.

    Workers belong to a configuration, not to a client: another client with the same one finds
    them too. They outlive the client that had them launched.

    Parameters
    ----------
    engine : Engine
        The client's inside. Its `config` is what a worker needs besides its order.
    options : mapping
        What the user said besides: ``oq.workers.start(kind=..., **options)``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __init__(self, engine: Engine, options: Mapping[str, object]) -> None: ...

    @abstractmethod
    async def find(self) -> list[tuple[WorkerOrder, WorkerInfo]]:
        """The workers of this configuration that live now."""

    @abstractmethod
    async def scale(self, order: WorkerOrder, n: int) -> list[WorkerInfo]:
        """Have exactly `n` workers follow this order.

        Returns when those that are missing have begun to claim. Those that are too many are
        asked to finish what they run, and nobody waits for that. The same goes for workers of
        the same queues whose order was another one.

        Returns
        -------
        list of WorkerInfo
            The `n` workers.

        Raises
        ------
        WorkerLost
            One of them could not start; its last words are in the message.
        """

    @abstractmethod
    async def stop(self, timeout: float | None) -> None:
        """End all workers of this configuration, and wait for it.

        They finish what they run. What still runs after `timeout` seconds is given back to the
        queue; a worker that does not react even then is killed.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of what this launcher holds. The workers go on."""


def check_shared(config: OmniQConfig, kind: str) -> None:
    """Refuse stores that only this process can reach.

    Raises
    ------
    ConfigError
        A component is kept in memory.
    """
    for component in COMPONENTS:
        where = config.resolve(component)
        if where.backend_type == "memory" or where.location == ":memory:":
            raise ConfigError(
                f"{component}_backend",
                config.backend(component).url or where.backend_type,
                f"for {kind} workers, which are other processes, a backend that these can reach: "
                "sqlite, file or a server; only workers of this process share its memory",
            )


def portable(engine: Engine) -> dict[str, Any]:
    """A client's configuration as another machine can have it: nothing is left to be looked up.

    It holds secrets in clear.

    Raises
    ------
    ConfigError
        A relative path means another place by now.
    """
    config = engine.config
    if identity_of(config) != engine.identity:
        allowed = f"that of the client, {engine.folder!r}; or absolute paths in its configuration"
        raise ConfigError("the working directory", working_directory(), allowed)
    settings = msgspec.structs.asdict(config.settings)
    written = {name: plain(value) for name, value in settings.items() if value is not None}
    for component in COMPONENTS:
        backend = config.backend(component)
        where = config.resolve(component)
        url = backend.url and expanded_url(backend.url, "url")
        written[f"{component}_backend"] = {
            "backend_type": where.backend_type,
            "url": url if where.location is None else where.location,
            "config": expanded(backend.config or {}, "config"),
        }
    return written


def refuse_options(kind: str, options: Mapping[str, object]) -> None:
    """Refuse words that this kind of worker does not know.

    Raises
    ------
    ConfigError
        There are some.
    """
    for name, value in options.items():
        raise ConfigError(name, value, f"nothing: {kind} workers have no such option")


def _isolation(key: str, value: object) -> object:
    if value not in EXECUTORS:
        raise ConfigError(key, value, ", ".join(sorted(EXECUTORS)), nearest(value, EXECUTORS))
    return value


def _at_least_one(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(key, value, "an integer, 1 or more")
    return value


def _bytes(key: str, value: object) -> int:
    """A size, given as a number of bytes or as ``"1.5 GB"``; units are powers of 1024."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        value = int(float(match[1]) * 1024 ** _UNITS[match[2].upper()])
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(key, value, "a number of bytes, or a size like '500 MB' or '2 GB'")
    return value


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "isolation": _isolation,
    "concurrency": _at_least_one,
    "idle_timeout": positive_seconds,
    "max_tasks": _at_least_one,
    "max_memory": _bytes,
}
