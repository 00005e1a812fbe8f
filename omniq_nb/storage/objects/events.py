"""Events as Parquet segments."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from omniq_nb.models.event import Event
from omniq_nb.storage.base import EventStore
from omniq_nb.storage.objects.bucket import Bucket
from omniq_nb.storage.objects.compaction import Clashes, Rules
from omniq_nb.storage.objects.segments import Kind, Segment, Segments
from omniq_nb.storage.objects.store import ObjectStore
from omniq_nb.storage.tables import EVENTS, table

KIND = Kind(
    folder="events",
    schema=EVENTS,
    shown=EVENTS,
    id="id",
    time="at",
    order="at",
    expires=None,
    group=100_000,
    encoded=("type", "name", "queue", "batch", "worker"),
)

APART = 30_000_000
"""Microseconds that two records of the same event may lie apart: the skew between two clocks."""

INLINE = 2_000
"""Events that are stored without a detour through a thread."""


class FirstEvent(Rules):
    """Of events with the same id the first one that was stored counts.

    A repeat comes from an append that was tried again, or from two processes that report the
    same happening; so its time is the same but for the skew between clocks, and it is looked for
    in the row groups around its time only.

    Parameters
    ----------
    segments : Segments
        Read to find repeats.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    def merge(self, fresh: Mapping[str, pa.Table]) -> pa.Table:
        """Sort by time; the sort is stable."""
        rows = pa.concat_tables([EVENTS.empty_table(), *fresh.values()]).combine_chunks()
        if pc.count_distinct(rows["id"]).as_py() < rows.num_rows:
            first = dict(
                zip(reversed(rows["id"].to_pylist()), range(rows.num_rows - 1, -1, -1), strict=True)
            )
            rows = rows.take(sorted(first.values()))
        return rows.sort_by("at")

    def clashes(self, rows: pa.Table, segments: Sequence[Segment]) -> Clashes:
        """Compare ids where the times meet."""
        beaten = []
        if rows.num_rows and segments:
            times = rows["at"].cast(pa.int64()).to_pylist()
            for group in self._segments.groups(segments):
                start, stop = 0, len(times)
                if group.low is not None:
                    start = bisect_left(times, group.low - APART)
                    stop = bisect_right(times, group.high + APART)
                if start < stop:
                    path, number = group.segment.path, group.number
                    known = self._segments.read_group(path, number, ("id",))["id"]
                    ours = rows["id"].slice(start, stop - start)
                    beaten += ours.filter(pc.is_in(ours, value_set=known)).to_pylist()
        return Clashes(pa.array(beaten, pa.string()), {})


class ObjectEventStore(ObjectStore, EventStore):
    """The history in a bucket; see `omniq_nb.storage.base.EventStore`.

    Parameters
    ----------
    bucket : Bucket
        Where it is kept.
    """

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket, KIND, FirstEvent)

    async def append(self, events: Sequence[Event]) -> None:
        """Store as one segment."""
        self._check_open()
        if events:
            await self._do(len(events) > INLINE, lambda: self._publish(table(events, EVENTS)))

    async def purge(self, before: float) -> int:
        """Drop segments and rewrite those that hold younger events too."""
        self._check_open()
        limit = round(before * 1_000_000)

        def over(rows: pa.Table) -> pa.Array:
            return pc.less(rows["at"].cast(pa.int64()), limit)

        def may_be(segment: Segment) -> bool:
            return segment.since is not None and segment.since < limit

        return await self._do(True, self._compactor.purge, over, ("at",), may_be)
