"""Results as Parquet segments; big payloads as objects beside them."""

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from omniq_nb.codec import split_table
from omniq_nb.models.result import Result
from omniq_nb.models.task import STATES, Claim, State
from omniq_nb.storage.base import ResultStore
from omniq_nb.storage.objects.bucket import Bucket
from omniq_nb.storage.objects.compaction import Clashes, Rules
from omniq_nb.storage.objects.inspection import orphaned_values
from omniq_nb.storage.objects.segments import (
    Group,
    Kind,
    Segment,
    Segments,
    View,
    by_age,
    new_name,
    retrying,
)
from omniq_nb.storage.objects.store import ObjectStore
from omniq_nb.storage.tables import RESULTS, TIME, microseconds, table

KIND = Kind(
    folder="results",
    schema=pa.schema([*RESULTS, ("payload", pa.binary()), ("payload_object", pa.string())]),
    shown=RESULTS,
    id="task_id",
    time="finished_at",
    order="task_id",
    expires="expires_at",
    group=32_768,
    encoded=("name", "queue", "batch", "worker", "state", "value_type", "error", "traceback"),
)

VALUES = "results/values"

BIG = 256 * 1024
"""Bytes of a payload from which on it becomes an object of its own."""

FRAME = 16 * 1024
"""Bytes of a data frame from which on it becomes a Parquet object of its own."""

INLINE, INLINE_BYTES = 2_000, 1024 * 1024
"""Results, and bytes of payload, that are stored without a detour through a thread."""

REPEAT = "-repeat"
"""Marks a segment some of whose claims its writer had stored before."""

REMEMBERED = 20_000
"""Claims that a process knows to have stored. A put is repeated at once or not at all."""

SKEW = 30_000_000
"""Microseconds by which two clocks may differ."""


class Place(NamedTuple):
    """Where a row is, and whose it is."""

    token: int
    path: str
    group: int
    row: int


class NewestResult(Rules):
    """Of results of the same task the one with the highest token counts, then the last put.

    Most rows need not be compared with the compacted ones at all. A task has two rows only if
    one of them is *odd*: its token is not 1 (a second claim, or none), or the task ended without
    an attempt, or a put was repeated. Row groups whose tokens are all 1 hold no odd row, other
    than those that are odd as fresh rows already; and a row with a higher token than an ordinary
    one has finished after that one's attempt began.

    Parameters
    ----------
    segments : Segments
        Read to find other rows of the same task.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    def merge(self, fresh: Mapping[str, pa.Table]) -> pa.Table:
        """Sort by task and token (the sort is stable), and take the last row of each task."""
        tables = [rows.append_column("odd", [_odd(rows, path)]) for path, rows in fresh.items()]
        if not tables:
            return RESULTS.empty_table().append_column("odd", [pa.array([], pa.bool_())])
        rows = pa.concat_tables(tables).combine_chunks()  # sorting many chunks is slow
        rows = rows.sort_by([("task_id", "ascending"), ("token", "ascending")])
        ids = rows["task_id"]
        last = pc.not_equal(ids[1:], ids[:-1])
        return rows.filter(pa.chunked_array([*last.chunks, pa.array([True])]))

    def clashes(self, rows: pa.Table, segments: Sequence[Segment]) -> Clashes:
        """Compare tokens where a row group may hold another row of the task."""
        beaten: list[str] = []
        hidden: dict[str, list[str]] = {}
        if rows.num_rows and segments:
            tokens = dict(zip(rows["task_id"].to_pylist(), rows["token"].to_pylist(), strict=True))
            odd = rows["task_id"].filter(rows["odd"]).to_pylist()
            began = pc.min(rows["started_at"].cast(pa.int64())).as_py()
            groups = self._segments.groups(segments)
            for all_ids, ids in ((True, list(tokens)), (False, odd)):
                some = [group for group in groups if _concerns_all(group, began) is all_ids]
                for task_id, place in find(self._segments, ids, some):
                    if place.token > tokens[task_id]:
                        beaten.append(task_id)
                    else:
                        hidden.setdefault(place.path, []).append(task_id)
        return Clashes(
            pa.array(beaten, pa.string()),
            {path: pa.array(ids, pa.string()) for path, ids in hidden.items()},
        )


def _odd(rows: pa.Table, path: str) -> pa.Array:
    if path.endswith(f"{REPEAT}.parquet"):
        return pa.array([True] * rows.num_rows)
    unattempted = pa.array([State.CANCELLED.value, State.EXPIRED.value])
    odd = pc.or_(pc.not_equal(rows["token"], 1), pc.is_in(rows["state"], value_set=unattempted))
    return odd.combine_chunks()


def _concerns_all(group: Group, began: int | None) -> bool:
    """Whether an ordinary row, too, may have another row in that group."""
    if group.tokens is None or group.tokens[0] < 1:
        return True
    until = group.segment.until
    return group.tokens[1] > 1 and (began is None or until is None or until >= began - SKEW)


def find(
    segments: Segments, ids: Sequence[str], groups: Sequence[Group]
) -> Iterator[tuple[str, Place]]:
    """Look for tasks in row groups. `ids` must be sorted."""
    keys = [task_id.encode() for task_id in ids]
    for group in groups:
        start, stop = 0, len(keys)
        if group.low is not None:
            start, stop = bisect_left(keys, group.low), bisect_right(keys, group.high)
        if start == stop:
            continue
        path, number = group.segment.path, group.number
        rows = segments.read_group(path, number, ("task_id", "token"))
        wanted = pa.array(ids[start:stop], pa.string())
        found = pc.indices_nonzero(pc.is_in(rows["task_id"], value_set=wanted))
        matches = rows.take(found)
        for row, task_id, token in zip(
            found.to_pylist(),
            matches["task_id"].to_pylist(),
            matches["token"].to_pylist(),
            strict=True,
        ):
            yield task_id, Place(token, path, number, row)


class ObjectResultStore(ObjectStore, ResultStore):
    """Outcomes in a bucket; see `omniq_nb.storage.base.ResultStore`.

    Parameters
    ----------
    bucket : Bucket
        Where they are kept.
    """

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket, KIND, NewestResult)
        self._lock = threading.Lock()
        self._stored: OrderedDict[Claim, None] = OrderedDict()
        self._index: dict[str, tuple[int, str, int]] = {}  # token, path, row of fresh rows
        self._indexed: set[str] = set()

    # ---------------------------------------------------------------- put

    async def put(self, results: Sequence[Result]) -> None:
        """Store as one segment, after the big payloads that it names."""
        self._check_open()
        if results:
            size = sum(len(result.payload) for result in results)
            await self._do(len(results) > INLINE or size > INLINE_BYTES, self._put, results)

    def _put(self, results: Sequence[Result]) -> None:
        bucket = self._segments.bucket
        objects: list[str | None] = [None] * len(results)
        payloads = [result.payload for result in results]
        big: dict[str, bytes] = {}
        for number, payload in enumerate(payloads):
            frame = split_table(payload) if len(payload) >= FRAME else None
            if frame is not None:
                objects[number] = path = f"{VALUES}/{new_name()}.parquet"
                payloads[number], big[path] = frame
            elif len(payload) >= BIG:
                objects[number] = path = f"{VALUES}/{new_name()}"
                payloads[number], big[path] = b"", payload
        try:
            bucket.write(big)
            rows = (
                table(results, RESULTS)
                .append_column("payload", pa.array(payloads, pa.binary()))
                .append_column("payload_object", pa.array(objects, pa.string()))
            )
            claims = [Claim(result.task_id, result.token) for result in results]
            repeat = any(claim in self._stored for claim in claims)
            self._publish(rows, REPEAT if repeat else "")
        except BaseException:
            bucket.delete(big)
            raise
        with self._lock:
            self._stored.update(dict.fromkeys(claims))
            while len(self._stored) > REMEMBERED:
                self._stored.popitem(last=False)

    # ---------------------------------------------------------------- get

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """Read each segment at most once, and only the row groups that may hold a task."""
        self._check_open()
        if not claims:
            return []
        return await self._do(True, retrying, lambda: self._get(claims))

    def _get(self, claims: Sequence[Claim]) -> list[Result | None]:
        places = self._find({claim.id for claim in claims})
        wanted: dict[tuple[str, int], list[str]] = {}
        for claim in claims:
            place = places.get(claim.id)
            if place is not None and place.token == claim.token:
                wanted.setdefault((place.path, place.group), []).append(claim.id)
        if not wanted:
            return [None] * len(claims)
        # What a column takes by itself is more than what it takes for a row: all at once.
        rows = pa.concat_tables(
            [
                self._segments.read_group(path, group, KIND.schema.names).take(
                    [places[task_id].row for task_id in ids]
                )
                for (path, group), ids in wanted.items()
            ]
        )
        found = {
            (result.task_id, result.token): result
            for result in self._results(rows)
            if result is not None
        }
        return [found.get(claim) for claim in claims]

    def _find(self, ids: set[str]) -> dict[str, Place]:
        """Say where the rows that count are."""
        view = self._segments.view()
        places = {}
        with self._lock:
            self._index_fresh(view)
            for task_id in ids:
                if (entry := self._index.get(task_id)) is not None:
                    token, path, row = entry
                    places[task_id] = Place(token, path, 0, row)
        segments = view.manifest.segments
        if segments:
            for task_id, place in find(
                self._segments, sorted(ids), self._segments.groups(segments)
            ):
                if task_id not in places or place.token > places[task_id].token:
                    places[task_id] = place
        return places

    def _index_fresh(self, view: View) -> None:
        fresh = self._segments.fresh_rows(view)
        if not self._indexed <= fresh.keys():
            self._index.clear()
            self._indexed.clear()
        for path in fresh.keys() - self._indexed:
            rows = fresh[path]
            pairs = zip(rows["task_id"].to_pylist(), rows["token"].to_pylist(), strict=True)
            for row, (task_id, token) in enumerate(pairs):
                known = self._index.get(task_id)
                if known is None or (token, by_age(path), row) > (
                    known[0],
                    by_age(known[1]),
                    known[2],
                ):
                    self._index[task_id] = (token, path, row)
            self._indexed.add(path)

    def _results(self, rows: pa.Table) -> list[Result | None]:
        """Rows as Structs. None: its value was deleted just now."""
        columns: dict[str, list[Any]] = {}
        for field in RESULTS:
            values = rows[field.name]
            if field.type == TIME:
                micros = values.cast(pa.int64()).to_pylist()
                columns[field.name] = [None if time is None else time / 1e6 for time in micros]
            else:
                columns[field.name] = values.to_pylist()
        columns["state"] = [STATES[state] for state in columns["state"]]
        payloads: list[bytes | None] = rows["payload"].to_pylist()
        paths = rows["payload_object"].to_pylist()
        big = [number for number, path in enumerate(paths) if path is not None]
        read = self._segments.bucket.read([paths[number] for number in big])
        for number, beside in zip(big, read, strict=True):
            payloads[number] = None if beside is None else (payloads[number] or b"") + beside
        names = (*columns, "payload")
        return [
            None if values[-1] is None else Result(**dict(zip(names, values, strict=True)))
            for values in zip(*columns.values(), payloads, strict=True)
        ]

    # ---------------------------------------------------------------- purge

    async def purge(self, now: float, before: float | None = None) -> int:
        """Rewrite the segments concerned, and delete their values."""
        self._check_open()
        return await self._do(True, self._purge, now, before)

    def _purge(self, now: float, before: float | None) -> int:
        expired = round(now * 1_000_000)
        finished = microseconds(before)

        def over(rows: pa.Table) -> pa.Array:
            mask = pc.less_equal(rows["expires_at"].cast(pa.int64()), expired)
            if finished is not None:
                old = pc.less(rows["finished_at"].cast(pa.int64()), finished)
                mask = pc.or_kleene(mask, old)
            return pc.fill_null(mask, False)

        def may_be(segment: Segment) -> bool:
            if segment.expires is not None and segment.expires <= expired:
                return True
            return finished is not None and segment.since is not None and segment.since < finished

        number = self._compactor.purge(over, ("expires_at", "finished_at"), may_be)
        retrying(lambda: self._delete_orphaned_values(now))
        return number

    def _delete_orphaned_values(self, now: float) -> None:
        """Delete what a process wrote that died before it could store the row."""
        needless = orphaned_values(self._segments, self._segments.view(), now)
        self._segments.bucket.delete(needless)
