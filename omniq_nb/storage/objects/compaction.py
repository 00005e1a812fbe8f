"""Small segments become large ones, and rows that are over go away. Readers notice neither.

A step reads some segments, writes what is to count instead, and commits that (`segments`). A
crash at any point leaves what counted before; what it wrote is an orphan that a later step
deletes. When two processes compact at once, the second commit is refused and its work thrown
away; a *claim*, an object that says "somebody is at it", makes that rare but guards nothing.

Once rows are compacted there is at most one of each id in all compacted segments together:
steps ask the `Rules` which rows meet their like in there.

Not here: which of two rows counts (`results`, `events`).
"""

import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from omniq_nb.errors import StoreError
from omniq_nb.storage.objects.segments import Segment, Segments, Vanished, View

FRESH_LIMIT = 256
"""Fresh segments that may lie about: a new reader needs about 0.2 ms for each."""

FRESH_ROWS = 100_000
"""Rows after which one writer compacts, however few segments they are in."""

LOOK_EVERY = 64
"""Segments that one writer stores between two looks at how many there are."""

FAN_IN = 8
"""Compacted segments of similar size that become one."""

ROWS_LIMIT = 1_000_000
SIZE_LIMIT = 512 * 1024 * 1024
"""Rows, and bytes in memory, of a segment that is large enough. A step takes about that much."""

BUDGET = 256 * 1024 * 1024
"""Bytes of fresh rows that one step takes into memory."""

CLAIM = 120.0
"""Seconds after which a claim is taken for the remains of a dead process."""

ORPHANED = 3600.0
"""Seconds after which a segment that does not count is taken for the same."""

Condition = Callable[[pa.Table], pa.Array]
"""For each row whether it is over. Called with any columns that a segment has."""

log = logging.getLogger("omniq_nb.storage.objects")


class Clashes(NamedTuple):
    """Where fresh rows meet compacted ones of the same id.

    Attributes
    ----------
    beaten : pyarrow.Array
        Ids of the fresh rows that do not count.
    hidden : mapping of str to pyarrow.Array
        By path of the compacted segment, ids of the rows in it that do not count any more.
    """

    beaten: pa.Array
    hidden: Mapping[str, pa.Array]


class Rules(ABC):
    """Which of several rows of the same id counts."""

    @abstractmethod
    def merge(self, fresh: Mapping[str, pa.Table]) -> pa.Table:
        """Make one table, sorted as segments are, of fresh segments by path, oldest first.

        Of each id the one row that counts. There may be additional columns.
        """

    @abstractmethod
    def clashes(self, rows: pa.Table, segments: Sequence[Segment]) -> Clashes:
        """Look for rows that `merge` gave in compacted segments, all of the view."""


def without(rows: pa.Table, column: str, values: pa.Array) -> pa.Table:
    """Leave out the rows that have one of these values."""
    if not len(values):
        return rows
    return rows.filter(pc.invert(pc.is_in(rows[column], value_set=values)))


class Compactor:
    """Compacts one kind of segments, in a thread of its own or in the caller's.

    Parameters
    ----------
    segments : Segments
        What to compact.
    rules : Rules
        Which rows count.
    """

    def __init__(self, segments: Segments, rules: Rules) -> None:
        self._segments = segments
        self._rules = rules
        self._kind = segments.kind
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._stored = LOOK_EVERY - 1  # short programs must look too: do so at the first put
        self._rows = 0
        self._swept_at = 0.0

    # ---------------------------------------------------------------- when

    def stored(self, rows: int) -> None:
        """One more fresh segment was stored: compact in the background if it is time."""
        self._stored += 1
        self._rows += rows
        if self._stored < LOOK_EVERY and self._rows < FRESH_ROWS:
            return
        if not self._segments.bucket.exclusive:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        least = FRESH_LIMIT if self._rows < FRESH_ROWS else 1
        self._stored = self._rows = 0
        self._thread = threading.Thread(
            target=self._run, args=(least,), name=f"omniq-compact-{self._kind.folder}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the step under way, and start no other one."""
        self._stopping = True
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._stopping = False

    def _run(self, least: int) -> None:
        try:
            if len(self._segments.view().fresh) >= least:
                self.compact()
        except StoreError as error:
            log.warning(
                "%s were not compacted, which only costs speed: %s", self._kind.folder, error
            )

    # ---------------------------------------------------------------- what

    def compact(self) -> None:
        """Compact all fresh segments, then what has become many small ones."""
        with self._working:
            self._require_exclusive()
            if not self._claim():
                return
            try:
                self._sweep()
                for fresh in _by_folder(self._segments.view().fresh).values():
                    if not self._stopping:
                        self._compact_fresh(fresh)
                while not self._stopping:
                    similar = self._similar(self._segments.view())
                    if not similar or self._replace(similar) is None:
                        break
            finally:
                self._segments.bucket.delete([self._claim_path])

    def purge(
        self, over: Condition, columns: Sequence[str], may_be: Callable[[Segment], bool]
    ) -> int:
        """Delete the rows that are over, and give their number.

        Parameters
        ----------
        over : callable
            Which rows those are.
        columns : sequence of str
            What it needs to know of a row.
        may_be : callable
            Whether there can be such a row in a compacted segment.
        """
        number = 0
        clean: set[str] = set()
        with self._working:
            self._require_exclusive()
            while True:
                view = self._segments.view()
                try:
                    if any(_any(over(rows)) for rows in self._segments.fresh_rows(view).values()):
                        # A row that is over may still be all that hides an older one.
                        for fresh in _by_folder(view.fresh).values():
                            self._compact_fresh(fresh)
                        continue
                    for segment in view.manifest.segments:
                        if segment.path in clean:
                            continue
                        clean.add(segment.path)
                        if may_be(segment) and _any(
                            over(self._segments.read(segment.path, columns))
                        ):
                            break
                    else:
                        return number
                    gone = self._replace([segment], over)
                    if gone is None:
                        clean.discard(segment.path)
                    number += gone or 0
                except Vanished:
                    clean.clear()

    def _require_exclusive(self) -> None:
        bucket = self._segments.bucket
        if not bucket.exclusive:
            raise StoreError(
                f"{bucket.url(self._kind.folder)} cannot be compacted or purged: the server lets "
                "two writers create the same object. Use one with conditional writes."
            )

    def _similar(self, view: View) -> list[Segment]:
        """Give segments to be merged: of one folder and about the same size."""
        today = self._segments.dated_folder()
        sizes: dict[tuple[str, int], list[Segment]] = {}
        for segment in view.manifest.segments:
            if segment.rows <= ROWS_LIMIT // 2 and segment.size <= SIZE_LIMIT // 2:
                folder = segment.path.rpartition("/")[0]
                # A folder of the past gets no more company: whatever is small there is merged.
                magnitude = segment.rows.bit_length() // 3 if folder == today else 0
                sizes.setdefault((folder, magnitude), []).append(segment)
        for (folder, _), segments in sizes.items():
            if len(segments) < (FAN_IN if folder == today else 2):
                continue
            segments.sort(key=lambda segment: segment.since or 0)
            taken: list[Segment] = []
            for segment in segments:
                if (
                    sum(s.rows for s in taken) + segment.rows > ROWS_LIMIT
                    or sum(s.size for s in taken) + segment.size > SIZE_LIMIT
                ):
                    break
                taken.append(segment)
            return taken
        return []

    # ---------------------------------------------------------------- how

    def _compact_fresh(self, paths: Sequence[str]) -> None:
        """Make compacted segments of these fresh ones of one folder."""
        left = list(paths)
        while left:
            tables: dict[str, pa.Table] = {}
            size = 0
            while left and size < BUDGET:
                some, left = left[:32], left[32:]
                try:
                    more = self._segments.whole(some)
                except Vanished:
                    return  # somebody else compacts them
                tables.update(more)
                size += sum(rows.nbytes for rows in more.values())
            view = self._segments.view()
            if not set(tables) <= set(view.fresh) or not self._replace_fresh(view, tables):
                return

    def _replace_fresh(self, view: View, tables: Mapping[str, pa.Table]) -> bool:
        """Let one compacted segment count instead of these fresh ones."""
        rows = self._rules.merge(tables)
        clashes = self._rules.clashes(rows, view.manifest.segments)
        rows = without(rows, self._kind.id, clashes.beaten).select(self._kind.schema.names)
        folder = next(iter(tables)).rpartition("/")[0]
        with Step(self._segments) as step:
            step.take(*tables.values())
            step.give(rows, folder)
            affected = [s for s in view.manifest.segments if s.path in clashes.hidden]
            for segment in affected:
                old = self._segments.read(segment.path, self._kind.schema.names)
                step.take(old)
                kept = without(old, self._kind.id, clashes.hidden[segment.path])
                step.give(kept, segment.path.rpartition("/")[0])
            return step.commit(view, affected, tuple(tables))

    def _replace(self, segments: Sequence[Segment], over: Condition | None = None) -> int | None:
        """Let one segment count instead of these, without the rows that are over.

        Returns
        -------
        int or None
            The number of those rows. None: somebody else was faster.
        """
        view = self._segments.view()
        if not set(segments) <= set(view.manifest.segments):
            return None
        try:
            tables = [self._segments.read(s.path, self._kind.schema.names) for s in segments]
        except Vanished:
            return None
        rows = tables[0]
        if len(tables) > 1:
            rows = pa.concat_tables(tables).combine_chunks().sort_by(self._kind.order)
        kept = rows if over is None else rows.filter(pc.invert(over(rows)))
        with Step(self._segments) as step:
            step.take(rows)
            del tables
            step.give(kept, segments[-1].path.rpartition("/")[0])
            if not step.commit(view, segments):
                return None
        return len(rows) - len(kept)

    # ---------------------------------------------------------------- cleaning

    def _sweep(self) -> None:
        """Delete, now and then, what a dead process left."""
        if time.monotonic() < self._swept_at:
            return
        self._swept_at = time.monotonic() + ORPHANED
        self._segments.bucket.delete(self._segments.orphans(time.time() - ORPHANED))

    @property
    def _claim_path(self) -> str:
        return f"{self._kind.folder}/manifest/claim"

    def _claim(self) -> bool:
        """Say that we compact. False: somebody else does."""
        bucket, path = self._segments.bucket, self._claim_path
        mine = f"{time.time() + CLAIM} {secrets.token_hex(8)}".encode()
        if bucket.create(path, mine):
            return True
        (theirs,) = bucket.read([path])
        if theirs is not None and float(theirs.split()[0]) > time.time():
            return False
        bucket.delete([path])
        return bucket.create(path, mine)


class Step:
    """Keeps the books of one replacement: what is written, and which values are not needed.

    Parameters
    ----------
    segments : Segments
        Where it takes place.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._added: list[Segment] = []
        self._needless: set[str] = set()
        self._decided = False

    def take(self, *tables: pa.Table) -> None:
        """Note rows that will not count in their old place."""
        for rows in tables:
            self._needless.update(values_of(rows))

    def give(self, rows: pa.Table, folder: str) -> None:
        """Write these rows, if any; call it after `take`."""
        self._needless.difference_update(values_of(rows))
        if rows.num_rows:
            self._added.append(self._segments.write_compacted(rows, folder))

    def commit(self, view: View, removed: Sequence[Segment], fresh: Sequence[str] = ()) -> bool:
        """Make it count. False: somebody was faster, and all is as it was."""
        # From here on an error leaves open whether it counts: delete nothing then.
        self._decided = True
        needless = sorted(self._needless)
        self._decided = self._segments.commit(view, self._added, removed, fresh, needless)
        return self._decided

    def __enter__(self) -> "Step":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._decided:
            self._segments.bucket.delete(segment.path for segment in self._added)


def values_of(rows: pa.Table) -> Iterable[str]:
    """Give the paths of the objects in which big payloads of these rows lie."""
    if "payload_object" not in rows.column_names:
        return ()
    column = rows["payload_object"]
    return column.drop_null().to_pylist() if column.null_count < len(column) else ()


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    return folders
