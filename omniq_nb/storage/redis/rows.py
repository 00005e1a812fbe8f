"""Structs as what Redis keeps of them, and back.

A task is kept in three pieces: where it stands (which scripts read and change), what was asked
for (which nobody changes), and its call (which only workers read). The first two are MessagePack
maps of fields, and both together the map of a task.

Lua's MessagePack knows texts but no bytes: `text` packs bytes as if they were a text.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from math import inf
from typing import TypeAlias, TypeVar

import msgspec

from omniq_nb.machine import dependency_error
from omniq_nb.models.event import Event
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule
from omniq_nb.models.task import Retry, Task

Item = TypeVar("Item")

PART = 1_000
"""Rows in one argument of a script."""

PART_BYTES = 8_000_000
"""Bytes after which an argument takes no further rows."""

PAGE = 500
"""Events in one page, at most."""

PAGE_SECONDS = 60
"""A page holds events of one such span, so that a range of time is a range of pages."""

_TOKEN_DIGITS, _LENGTH_DIGITS = 13, 8
_HEADER = _TOKEN_DIGITS + _LENGTH_DIGITS
_SPAN_DIGITS, _NAME_DIGITS = 10, 16
_PAGE_HEADER = _SPAN_DIGITS + _NAME_DIGITS
_LAST_SPAN = 0xFFFFFFFFFF

_encode = msgspec.msgpack.encode
_SEQ = _encode("seq")
_decode_task = msgspec.msgpack.Decoder(Task).decode
_decode_result = msgspec.msgpack.Decoder(Result).decode
_decode_events = msgspec.msgpack.Decoder(list[Event]).decode
_decode_schedule = msgspec.msgpack.Decoder(Schedule).decode


class _Standing(msgspec.Struct, omit_defaults=True, gc=False):
    """What the scripts must know of a new task. They add a few fields of `Task`: 14 in all."""

    queue: str
    priority: int
    available_at: float
    state: str
    expires_at: float | None = None
    depends_on: tuple[str, ...] = ()


class _Head(msgspec.Struct, omit_defaults=True, gc=False):
    """What else was asked for, but for the call."""

    id: str
    name: str
    batch: str | None = None
    position: int = 0
    arguments: str = "{}"
    tags: tuple[str, ...] = ()
    metadata: str = "{}"
    created_at: float = 0.0
    timeout: float | None = None
    result_ttl: float | None = None
    retry: Retry = Retry()
    schedule: str | None = None
    bundles: tuple[str, ...] = ()


_NewTask: TypeAlias = tuple[tuple[str, int, float, msgspec.Raw], msgspec.Raw, msgspec.Raw]
"""Its row, its head and its call, for ``adding.lua``."""


def text(data: bytes) -> msgspec.Raw:
    """Pack bytes as MessagePack packs a text."""
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4) + data)


def parts(
    rows: Iterator[tuple[Item, int]], arrange: Callable[[list[Item]], object] = list
) -> list[bytes]:
    """Pack rows, each given with its size, as arguments of bounded size."""
    packed, part, size = [], list[Item](), 0
    for row, length in rows:
        part.append(row)
        size += length
        if len(part) == PART or size > PART_BYTES:
            packed.append(_encode(arrange(part)))
            part, size = [], 0
    if part:
        packed.append(_encode(arrange(part)))
    return packed


# ---------------------------------------------------------------- tasks


def packed_tasks(tasks: Sequence[Task]) -> tuple[list[tuple[str, int]], list[bytes]]:
    """Pack new tasks: the places (queue and priority) in which they are, and the tasks."""
    places: dict[tuple[str, int], int] = {}
    standings: dict[object, msgspec.Raw] = {}  # those of a batch are equal

    def rows() -> Iterator[tuple[_NewTask, int]]:
        for t in tasks:
            place = places.setdefault((t.queue, t.priority), len(places) + 1)
            fields = (t.queue, t.priority, t.available_at, t.expires_at, t.depends_on)
            standing = standings.get(fields)
            if standing is None:
                standing = standings[fields] = _standing(*fields)
            head = _Head(
                t.id,
                t.name,
                t.batch,
                t.position,
                t.arguments,
                t.tags,
                t.metadata,
                t.created_at,
                t.timeout,
                t.result_ttl,
                t.retry,
                t.schedule,
                t.bundles,
            )
            row = (t.id, place, t.available_at, standing)
            yield (row, text(_encode(head)), text(t.call)), len(t.call) + len(t.arguments)

    packed = parts(rows(), _arranged)
    return list(places), packed


def _standing(
    queue: str,
    priority: int,
    available_at: float,
    expires_at: float | None,
    depends_on: tuple[str, ...],
) -> msgspec.Raw:
    packed = _encode(_Standing(queue, priority, available_at, "queued", expires_at, depends_on))
    # One field more, whose value the script appends: it gives the number of arrival.
    return text(bytes((packed[0] + 1,)) + packed[1:] + _SEQ)


def _arranged(part: list[_NewTask]) -> tuple[object, ...]:
    """Give new tasks as ``adding.lua`` takes them: heads and calls as they go into their hashes."""
    heads, calls = list[object](), list[object]()
    for row, head, call in part:
        heads += (row[0], head)
        calls += (row[0], call)
    return [row for row, _, _ in part], heads, calls


def task_of(standing: bytes, head: bytes, call: bytes = b"") -> Task:
    """Make a task of its pieces."""
    # Two maps of at most 15 fields each, whose first byte is their number, become one.
    fields = (standing[0] & 15) + (head[0] & 15)
    task = _decode_task(b"\xde" + fields.to_bytes(2) + standing[1:] + head[1:])
    task.call = call
    if task.error is not None and task.error.startswith("\0"):
        task.error = dependency_error(task.error[1:])  # the scripts know the id only
    return task


# ---------------------------------------------------------------- results


def result_row(result: Result) -> tuple[tuple[object, ...], int]:
    """Make a result a row of ``results.lua``, and tell its size."""
    without = copy(result)
    without.payload = b""
    packed = _encode(without)
    stored = b"%013x%08x%b%b" % (result.token, len(packed), packed, result.payload)
    finished_at = inf if result.finished_at is None else result.finished_at
    expires_at = False if result.expires_at is None else result.expires_at
    return (result.task_id, result.token, finished_at, expires_at, text(stored)), len(stored)


def result_of(stored: bytes) -> Result:
    """Make a result of what is stored, with or without its payload."""
    end = _HEADER + int(stored[_TOKEN_DIGITS:_HEADER], 16)
    result = _decode_result(stored[_HEADER:end])
    result.payload = stored[end:]
    return result


def token_of(stored: bytes) -> int:
    """Tell the token of a stored result."""
    return int(stored[:_TOKEN_DIGITS], 16)


# ---------------------------------------------------------------- events
#
# A page: the number of its span, a random name, the events. So pages are ordered by time as texts.


def pages_of(events: Sequence[Event]) -> list[bytes]:
    """Put events into pages."""
    spans: dict[int, list[Event]] = {}
    for event in events:
        spans.setdefault(_span(event.at), []).append(event)
    return [
        b"%010x%b%b" % (span, secrets.token_hex(8).encode(), _encode(page))
        for span, some in spans.items()
        for page in steps(some, PAGE)
    ]


def events_of(page: bytes) -> list[Event]:
    """Give the events of a page."""
    return _decode_events(page[_PAGE_HEADER:])


def page_without(page: bytes, left: Sequence[Event]) -> bytes:
    """Make what takes the place of a page when only these events are left; nothing, if none."""
    return page[:_PAGE_HEADER] + _encode(left) if left else b""


def before_pages(at: float) -> bytes:
    """Spell the bound between the pages before the span of a moment, and its own."""
    return b"%010x" % _span(at)


def behind_page(page: bytes) -> bytes:
    """Spell the bound behind a page, also if it is replaced meanwhile."""
    return page[:_PAGE_HEADER] + b"\xff"


def _span(at: float) -> int:
    return min(max(0, int(at // PAGE_SECONDS)), _LAST_SPAN)


# ---------------------------------------------------------------- schedules


def packed_schedule(schedule: Schedule, version: int) -> bytes:
    """Make a schedule what is stored of it."""
    stored = msgspec.structs.replace(schedule, version=version)
    return version_digits(version) + _encode(stored)


def version_digits(version: int) -> bytes:
    """Spell a version."""
    return b"%013x" % version


def schedule_of(stored: bytes) -> Schedule:
    """Make a schedule of what is stored."""
    return _decode_schedule(stored[len(version_digits(0)) :])


def truths(digits: bytes) -> list[bool]:
    """Read a text of ones and noughts."""
    return [digit == ord("1") for digit in digits]


def steps(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cut a sequence into parts of that size; the last one may be shorter."""
    return (items[first : first + size] for first in range(0, len(items), size))
