"""Results as rows in a stream; big payloads as objects beside them.

::

    PREFIX-results   PREFIX.results                     one frame for each put
    PREFIX-objects   PREFIX.objects.results.value.NAME.N   big payloads, cut into parts

Who reads results keeps an index in memory: for each task where its newest row is, some 300 bytes.
It is filled by reading along, so a question costs one request for the stream's last number, and
one for each frame that holds an answer. Who only puts results keeps nothing.

An object is stored before the row that names it. If the writer dies in between, `purge` deletes
the object a day later.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

from omniq_nb.errors import StoreError
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, State
from omniq_nb.storage.base import Query, ResultStore, Scan
from omniq_nb.storage.nats import frames
from omniq_nb.storage.nats.columns import ArrowBuilder, Gone, Rows, rows_of, unpack
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.feed import Feed
from omniq_nb.storage.nats.frames import Frame
from omniq_nb.storage.nats.objects import Objects
from omniq_nb.storage.nats.rows import RowStream
from omniq_nb.storage.nats.streams import Stream, together

NAMES = Result.__struct_fields__
VALUE, SIZE = "value_name", "value_size"
"""Columns: the name and the length of the object that holds the payload, if it is big."""

BIG = 64 * 1024
"""Bytes of a payload from which on it becomes an object."""

UNUSED = 30.0
"""Seconds without a question after which the index is no longer kept up to date by itself."""

TRIES = 10
"""Times that frames may be deleted under a reader's hands."""


class _Place(NamedTuple):
    """Where a task's newest row is, and when it may go."""

    token: int
    seq: int
    row: int
    finished_at: float | None
    expires_at: float | None


class _Held:
    """What is known of a frame of rows."""

    __slots__ = ("first", "live", "total", "values")

    def __init__(self, first: int, total: int, values: list[str]) -> None:
        self.first = first
        self.total = total
        self.live = 0
        self.values = values


class _Index:
    """Where the rows that count are: a fold of the stream's frames, in their order.

    Attributes
    ----------
    complete : int
        Up to there everything was taken in that existed at some moment.
    is_stale : bool
        Something was deleted that this index did not hear of: it must be made anew.
    """

    def __init__(self) -> None:
        self.places: dict[str, _Place] = {}
        self.frames: dict[int, _Held] = {}
        self.told: dict[int, tuple[int, list[tuple[int, int]]]] = {}
        self.complete = 0
        self.is_stale = False

    def fold(self, frame: Frame, content: Rows | Gone) -> None:
        """Take in one frame."""
        if isinstance(content, Gone):
            self.is_stale |= 0 < self.complete < content.before not in self.told
            self.told.pop(content.before, None)
            self.told[frame.seq] = frame.first, content.frames
            self._forget({seq for _, seq in content.frames})
            return
        values = [name for name in content.column(VALUE) if isinstance(name, str)]
        self.frames[frame.seq] = held = _Held(frame.first, content.count, values)
        columns = map(content.column, ("task_id", "token", "finished_at", "expires_at"))
        for row, (task_id, token, finished_at, expires_at) in enumerate(zip(*columns, strict=True)):
            known = self.places.get(task_id)
            if known is not None:
                if known.token > token:
                    continue
                self.frames[known.seq].live -= 1
            self.places[task_id] = _Place(token, frame.seq, row, finished_at, expires_at)
            held.live += 1

    def _forget(self, seqs: set[int]) -> None:
        if not seqs.isdisjoint(self.frames):
            self.places = {id: place for id, place in self.places.items() if place.seq not in seqs}
            for seq in seqs:
                self.frames.pop(seq, None)


class NatsResultStore(ResultStore):
    """Outcomes in a stream; see `omniq_nb.storage.base.ResultStore`.

    Parameters
    ----------
    connection : Connection
        Shared.
    """

    immediate: ClassVar[bool] = False

    def __init__(self, connection: Connection) -> None:
        self._rows = RowStream(connection, "results")
        self._beside = Stream(connection, "objects", (">",))
        self._values = Objects(self._beside, f"{self._beside.subject}.results.value")
        self._feed = Feed(self._rows.stream, self._fold)
        self._used = 0.0
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Make what a forked child must not share: the fork may have come in mid-turn."""
        self._pid = os.getpid()
        self._reading = asyncio.Lock()
        self._forget_all()

    async def open(self) -> None:
        """Make the streams; see `Store`."""
        await self._rows.open(self._beside)

    async def close(self) -> None:
        """See `Store`."""
        await self._feed.stop()
        await self._rows.close()

    # ---------------------------------------------------------------- put

    async def put(self, results: Sequence[Result]) -> None:
        """Store as one frame, after the big payloads that it names."""
        self._rows.check_open()
        if not results:
            return
        names: list[object] = []
        sizes: list[object] = []
        payloads: list[object] = []
        for result in results:
            big = len(result.payload) >= BIG
            names.append(secrets.token_hex(16) if big else None)
            sizes.append(len(result.payload))
            payloads.append(b"" if big else result.payload)
            if big:
                await self._values.put(str(names[-1]), result.payload)
        rows = rows_of(results, NAMES).replaced(payload=payloads)
        if any(names):
            rows = rows.replaced(**{VALUE: names, SIZE: sizes})
        await self._rows.append(rows)

    # ---------------------------------------------------------------- get

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """Read each frame that holds one of them, once."""
        self._check()
        if not claims:
            return []
        async with self._reading:
            for _ in range(TRIES):
                await self._catch_up()
                found = await self._read(claims)
                if found is not None:
                    return [found.get(claim) for claim in claims]
        raise StoreError("Results are being deleted faster than they can be read. Try again.")

    async def _read(self, claims: Sequence[Claim]) -> dict[Claim, Result] | None:
        """Read results. None: some were deleted, or stored elsewhere, meanwhile."""
        wanted: dict[int, list[int]] = {}
        for claim in claims:
            place = self._index.places.get(claim.id)
            if place is not None and place.token == claim.token:
                wanted.setdefault(place.seq, []).append(place.row)
        starts = [self._index.frames[seq].first for seq in wanted]
        found: dict[Claim, Result] = {}
        read = await together(partial(frames.starting, self._rows.stream), starts)
        for frame, numbers in zip(read, wanted.values(), strict=True):
            rows = None if frame is None else unpack(frame.data)
            if not isinstance(rows, Rows):
                return None
            for result in await self._results(rows.only(numbers)):
                if result is None:
                    return None
                found[Claim(result.task_id, result.token)] = result
        return found

    async def _results(self, rows: Rows) -> list[Result | None]:
        """Rows as Structs. None: its payload was deleted just now."""
        columns = [rows.column(name) for name in NAMES if name in rows.names]
        known = [name for name in NAMES if name in rows.names]
        results: list[Result | None] = []
        for values, name, size in zip(
            zip(*columns, strict=True), rows.column(VALUE), rows.column(SIZE), strict=True
        ):
            fields: dict[str, Any] = dict(zip(known, values, strict=True))
            fields["state"] = State(fields["state"])
            if name is not None:
                payload = await self._values.get(str(name), [(0, cast(int, size))])
                if payload is None:
                    results.append(None)
                    continue
                fields["payload"] = payload[0]
            results.append(Result(**fields))
        return results

    # ---------------------------------------------------------------- scan

    async def scan(self, query: Query) -> Scan:
        """Read what was stored since the time asked for, and keep the rows that count."""
        from omniq_nb.storage.tables import RESULTS, select

        self._check()
        wanted = select(RESULTS, query.columns)
        needed = set(wanted.names)
        read: list[tuple[int, list[object], Rows]] = []

        def take(frame: Frame) -> None:
            content = unpack(frame.data)
            if frame.seq > self._feed.position:
                self._index.fold(frame, content)
                self._feed.begin(frame.seq)
            if isinstance(content, Rows):
                names = [name for name in content.names if name in needed]
                read.append((frame.seq, content.column("task_id"), content.some(names)))

        async with self._reading:
            while True:
                if query.since is None and not self._index.complete:
                    self._forget_all()  # what is read for the scan fills the index too
                else:
                    await self._catch_up()
                await self._feed.stop()
                await self._rows.replay(take, query.since)
                if not self._index.is_stale:
                    break
                read.clear()
                self._forget_all()
            self._index.complete = self._feed.position
            builder = ArrowBuilder(wanted)
            places = self._index.places
            for seq, ids, rows in read:
                live = [
                    row
                    for row, id in enumerate(ids)
                    if (place := places.get(cast(str, id))) is not None
                    and place.seq == seq
                    and place.row == row
                ]
                builder.add(rows if len(live) == rows.count else rows.only(live))
        return Scan(builder.table())

    # ---------------------------------------------------------------- purge

    async def purge(self, now: float, before: float | None = None) -> int:
        """Delete frames, and store what is left of those that hold other results too."""
        self._check()
        async with self._reading:
            await self._catch_up()
            index = self._index
            over: dict[int, int] = {}
            for place in index.places.values():
                if _is_over(place, now, before):
                    over[place.seq] = over.get(place.seq, 0) + 1
            number = sum(over.values())
            # With a row that supersedes another one, that other one must go too: or it would
            # count again. So no superseded row stays anywhere.
            gone = []
            oldest = self._feed.position + 1
            for seq, held in index.frames.items():
                if seq in over or held.live < held.total:
                    gone.append((held.first, seq))
                else:
                    oldest = min(oldest, held.first)
            unneeded: set[str] = set()
            for first, seq in gone:
                unneeded |= await self._store_rest(first, seq, now, before)
            told = [(first, seq) for seq, (first, _) in index.told.items()]
            for _, earlier in index.told.values():
                gone += earlier  # its teller may have died before they were deleted
            if gone or len(told) > 1:
                await self._rows.delete(gone, told, oldest)
            await self._catch_up()
            # What superseded a row may be its copy, stored in doubt, with the same object.
            kept = {name for held in self._index.frames.values() for name in held.values}
            for name in unneeded - kept:
                await self._values.delete(name)
            await self._values.sweep(kept)
        return number

    async def _store_rest(self, first: int, seq: int, now: float, before: float | None) -> set[str]:
        """Store the rows of a frame that stay, again; which objects the others leave behind."""
        frame = await frames.starting(self._rows.stream, first)
        rows = None if frame is None else unpack(frame.data)
        if not isinstance(rows, Rows):
            return set()  # somebody else purges
        stay = []
        for row, id in enumerate(rows.column("task_id")):
            place = self._index.places.get(cast(str, id))
            here = place is not None and (place.seq, place.row) == (seq, row)
            if place is not None and here and not _is_over(place, now, before):
                stay.append(row)
        rest = rows.only(stay)
        if stay:
            await self._rows.append(rest)
        names = set(rows.column(VALUE)) - set(rest.column(VALUE))
        return {str(name) for name in names if name is not None}

    # ---------------------------------------------------------------- inside

    def _fold(self, frame: Frame) -> None:
        self._index.fold(frame, unpack(frame.data))
        if time.monotonic() - self._used > UNUSED:
            self._feed.pause()

    async def _catch_up(self) -> None:
        """Fold all that was stored up to now."""
        self._used = time.monotonic()
        state = await self._rows.stream.state()
        if self._rows.connection.generation != self._generation:
            self._forget_all()  # the server may have forgotten what it was not told to sync
        await self._feed.reach(state.last_seq)
        if self._index.is_stale:
            self._forget_all()
            await self._feed.reach(state.last_seq)
        self._index.complete = self._feed.position
        await self._feed.listen()

    def _check(self) -> None:
        """Refuse use when it is closed, and notice that this is a forked child."""
        self._rows.check_open()
        if os.getpid() != self._pid:
            self._start_afresh()

    def _forget_all(self) -> None:
        self._index = _Index()
        self._generation = self._rows.connection.generation
        self._feed.begin(0)


def _is_over(place: _Place, now: float, before: float | None) -> bool:
    if place.expires_at is not None and place.expires_at <= now:
        return True
    return before is not None and place.finished_at is not None and place.finished_at < before
