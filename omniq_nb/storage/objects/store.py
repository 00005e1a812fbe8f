"""What the result store and the event store have in common: opening, scanning, purging.

Not here: what a row is, and which one counts (`results`, `events`).
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import pyarrow as pa

from omniq_nb.errors import StoreClosed
from omniq_nb.storage.base import Query, Scan, Store
from omniq_nb.storage.objects.bucket import Bucket
from omniq_nb.storage.objects.compaction import Clashes, Compactor, Rules, without
from omniq_nb.storage.objects.inspection import inspect
from omniq_nb.storage.objects.segments import Kind, Segment, Segments, Vanished, View, retrying
from omniq_nb.storage.tables import microseconds, select
from omniq_nb.storage.upkeep import Finding

_waiting: dict[int, ThreadPoolExecutor] = {}
"""By process, threads that wait for a network. Not the loop's own, of which a driver may need one
to go on."""

P = ParamSpec("P")
T = TypeVar("T")


class Tail(NamedTuple):
    """The fresh rows of a view that count, and what they do to the compacted ones."""

    view: View
    rows: pa.Table
    clashes: Clashes


class ObjectStore(Store):
    """Rows of one kind in a bucket.

    Parameters
    ----------
    bucket : Bucket
        Where they are kept.
    kind : Kind
        What they are.
    rules : callable
        Makes the rules of the segments that it is given.
    """

    def __init__(self, bucket: Bucket, kind: Kind, rules: Callable[[Segments], Rules]) -> None:
        self.immediate = bucket.immediate  # type: ignore[misc]
        self.rest = bucket.rest
        self._kind = kind
        self._segments = Segments(bucket, kind)
        self._rules = rules(self._segments)
        self._compactor = Compactor(self._segments, self._rules)
        self._tail: Tail | None = None
        self._open = False

    async def open(self) -> None:
        """Create what is missing; see `Store`."""
        await self._do(True, self._segments.open)
        self._open = True

    async def close(self) -> None:
        """Wait for the compaction step under way; see `Store`."""
        self._open = False
        await self._do(True, self._close)

    async def scan(self, query: Query) -> Scan:
        """Compacted segments as files, where they hold nothing that a fresh row supersedes."""
        self._check_open()
        return await self._do(True, retrying, lambda: self._scan(query))

    async def compact(self) -> None:
        """Compact now what is otherwise compacted in the background when there is enough of it."""
        self._check_open()
        await self._do(True, self._compactor.compact)

    async def inspect(self, repair: bool) -> Sequence[Finding]:
        """Read every segment; see `Kept`."""
        self._check_open()
        return await self._do(True, inspect, self._segments, repair)

    # ---------------------------------------------------------------- inside

    async def _do(self, slow: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work: here, or in a thread if it is slow and would block a running loop."""
        bucket = self._segments.bucket
        if (slow or not bucket.immediate) and _on_a_loop():
            if bucket.immediate:
                return await asyncio.to_thread(work, *args, **kwargs)
            loop = asyncio.get_running_loop()
            bucket.attach(loop)
            return await loop.run_in_executor(_threads(), partial(work, *args, **kwargs))
        return work(*args, **kwargs)

    def _close(self) -> None:
        self._compactor.stop()
        self._segments.bucket.close()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreClosed(f"The store of {self._kind.folder} is closed.")

    def _publish(self, rows: pa.Table, mark: str = "") -> None:
        self._segments.publish(rows, mark)
        self._compactor.stored(rows.num_rows)

    def _scan(self, query: Query) -> Scan:
        view, rows, clashes = self._look()
        columns = select(self._kind.shown, query.columns).names
        parts = [rows.select(columns)]
        paths = []
        for segment in view.manifest.segments:
            if not _may_hold(segment, query):
                continue
            hidden = clashes.hidden.get(segment.path)
            if hidden is None:
                paths.append(segment.path)
                continue
            names = list(dict.fromkeys((*columns, self._kind.id)))
            old = self._segments.read(segment.path, names)
            parts.append(without(old, self._kind.id, hidden).select(columns))
        try:
            files = self._segments.bucket.files(paths)
        except FileNotFoundError:
            raise Vanished from None
        return Scan(pa.concat_tables(parts), files)

    def _look(self) -> Tail:
        """Give the fresh rows that count; they are worked out once for each view."""
        view = self._segments.view()
        tail = self._tail
        if tail is None or tail.view is not view:
            rows = self._rules.merge(self._segments.fresh_rows(view))
            clashes = self._rules.clashes(rows, view.manifest.segments)
            rows = without(rows, self._kind.id, clashes.beaten).select(self._kind.shown.names)
            self._tail = tail = Tail(view, rows, clashes)
        return tail


def _may_hold(segment: Segment, query: Query) -> bool:
    since, until = microseconds(query.since), microseconds(query.until)
    if since is None and until is None:
        return True
    if segment.since is None or segment.until is None:
        return False  # not one row has a time
    return (since is None or segment.until >= since) and (until is None or segment.since < until)


def _threads() -> ThreadPoolExecutor:
    process = os.getpid()
    if process not in _waiting:
        _waiting[process] = ThreadPoolExecutor(16, "omniq-objects")
    return _waiting[process]


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
