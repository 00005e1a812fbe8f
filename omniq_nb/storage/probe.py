"""Trying a configuration: each component is opened and asked, and says what it promises.

For *Test connection* in the panel and ``omniq-nb check``. Nothing of it stays: a schedule that
is put to see whether a stale write is refused is removed again. What a backend needs at all, its
file or its tables, is created as `connect` would.

Not here: what each place promises (``promises`` of the place), and what the verbs must do
(`omniq_nb.testing`).
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from omniq_nb.config.backend import StorageBackendConfig
from omniq_nb.config.model import COMPONENTS, OmniQConfig, Resolved
from omniq_nb.config.options import fields, is_secret
from omniq_nb.config.urls import redacted
from omniq_nb.errors import ConfigError, OmniQError, StoreError
from omniq_nb.models.schedule import Schedule, ScheduleState, ScheduleType
from omniq_nb.models.task import Claim, Task
from omniq_nb.storage.base import EventStore, Query, ResultStore, ScheduleStore, Store, TaskQueue
from omniq_nb.storage.factory import Place, StorageBackendFactory

Check: TypeAlias = Callable[[], Awaitable[str]]
"""Asks an open store, and says what it was seen to do."""

PATIENCE = 15.0
"""Seconds that a place may take to open and answer before it counts as out of reach."""


@runtime_checkable
class Promising(Protocol):
    """A place that says what it promises. Those that other packages add need not."""

    async def promises(self) -> Mapping[str, str]:
        """What the open place promises, in words, by topic.

        The topics: ``durability`` (what an acknowledged write survives), ``sharing`` (who else
        may use the place) and ``exclusion`` (what keeps two workers from one task).
        """


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying one component.

    Attributes
    ----------
    component : str
        ``"task_queue"``, ``"result_storage"``, ``"event_storage"`` or ``"schedule_storage"``.
    backend_type : str
        Of the backend that serves it; empty if the configuration does not say so much.
    place : str
        Where it is, without secrets.
    promises : mapping of str to str
        By topic, in words: see `Promising`, and ``checked`` for what was really tried.
    seconds : float
        How long opening and asking took.
    problem : str or None
        What stands in the way, in words; None: it works.
    """

    component: str
    backend_type: str = ""
    place: str = ""
    promises: Mapping[str, str] = {}
    seconds: float = 0.0
    problem: str | None = None


async def probe(config: OmniQConfig) -> list[Promise]:
    """Open each component and ask it, all places at the same time.

    Parameters
    ----------
    config : OmniQConfig
        What to try.

    Returns
    -------
    list of Promise
        One for each component, in their order. A component that does not work is no error here:
        its `problem` says why.
    """
    return list(await asyncio.gather(*(_tried(config, component) for component in COMPONENTS)))


async def _tried(config: OmniQConfig, component: str) -> Promise:
    try:
        where = config.resolve(component)
    except OmniQError as error:
        return Promise(
            component=component, backend_type=_type(config, component), problem=str(error)
        )
    found = Promise(
        component=component,
        backend_type=where.backend_type,
        place=_shown_place(where, config.backend(component)),
    )
    started = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            promises = await _answers(where, component)
        if component == "result_storage" and where == config.resolve("task_queue"):
            promises |= _together(where)
    except TimeoutError:
        problem = f"no answer within {PATIENCE:g} seconds"
    except Exception as error:
        # Of whatever kind: a driver's own errors are for the user to read, not for a traceback.
        problem = _without_secrets(error, where)
    else:
        seconds = round(time.monotonic() - started, 3)
        return msgspec.structs.replace(found, promises=promises, seconds=seconds)
    return msgspec.structs.replace(found, problem=problem)


async def _answers(where: Resolved, component: str) -> dict[str, str]:
    """What the place says when it is open, and what the component was seen to do."""
    # A place of its own for each component: what is wrong with one is not wrong with another.
    place = StorageBackendFactory.create_place(where)
    store, check = _COMPONENTS[component](place)
    try:
        await store.open()
        seen = {"checked": await check()}
        said = dict(await place.promises()) if isinstance(place, Promising) else {}
    finally:
        await store.close()
    if component != "task_queue":
        said.pop("exclusion", None)
    return said | seen


def _together(where: Resolved) -> dict[str, str]:
    """What it means for results that the tasks are in the same place."""
    place = StorageBackendFactory.create_place(where)
    if not place.task_queue().commits_with(place.result_storage()):
        return {}
    return {"together": "a result and its task are one transaction"}


# ---------------------------------------------------------------- what is really tried


async def _check_queue(queue: TaskQueue) -> str:
    await queue.counts()
    if await queue.extend([Claim(_nobody(), 1)], 1.0) != [False]:
        raise StoreError("a claim that does not exist was extended")
    return "counts tasks; refuses a claim that is not the newest"


async def _check_results(results: ResultStore) -> str:
    if await results.get([Claim(_nobody(), 1)]) != [None]:
        raise StoreError("a result was found that nobody stored")
    return "looks up a result"


async def _check_events(events: EventStore) -> str:
    await events.scan(Query(columns=("type",), since=time.time()))
    return "reads the newest events"


async def _check_schedules(schedules: ScheduleStore) -> str:
    # The only rows that can be taken back, so the only write that is tried.
    trial = Schedule(
        id=_nobody(),
        type=ScheduleType.ONCE,
        template=Task(id="", name="omniq-probe"),
        at=0.0,
        state=ScheduleState.PAUSED,
    )
    try:
        if not await schedules.put(trial, 0):
            raise StoreError("a new schedule was refused")
        if await schedules.put(trial, 0):
            raise StoreError("a write that came too late was accepted")
    finally:
        await schedules.remove(trial.id)
    return "writes; refuses a write that comes too late"


def _nobody() -> str:
    """An id that nothing has."""
    return f"omniq-probe-{secrets.token_hex(6)}"


def _queue(place: Place) -> tuple[Store, Check]:
    store = place.task_queue()
    return store, partial(_check_queue, store)


def _results(place: Place) -> tuple[Store, Check]:
    store = place.result_storage()
    return store, partial(_check_results, store)


def _events(place: Place) -> tuple[Store, Check]:
    store = place.event_storage()
    return store, partial(_check_events, store)


def _schedules(place: Place) -> tuple[Store, Check]:
    store = place.schedule_storage()
    return store, partial(_check_schedules, store)


_COMPONENTS: dict[str, Callable[[Place], tuple[Store, Check]]] = dict(
    zip(COMPONENTS, (_queue, _results, _events, _schedules), strict=True)
)


# ---------------------------------------------------------------- words without secrets


def _type(config: OmniQConfig, component: str) -> str:
    """The type of a backend with which something else is wrong; empty if it is the type."""
    try:
        return config.backend(component).backend_type
    except ConfigError:
        return ""


def _shown_place(where: Resolved, backend: StorageBackendConfig) -> str:
    """Where it is: as resolved, or else as written."""
    if where.location is not None:
        return where.location
    return "" if backend.url is None else redacted(backend.url)


def _without_secrets(error: Exception, where: Resolved) -> str:
    """An error in words. Drivers quote what they were given, so the secrets are struck out."""
    text = str(error) if isinstance(error, OmniQError) else f"{type(error).__name__}: {error}"
    if where.options is not None:
        for name, field in fields(type(where.options)).items():
            value = getattr(where.options, name)
            if is_secret(field) and value:
                text = text.replace(str(value), "***")
    return text
