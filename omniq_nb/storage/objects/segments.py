"""Segments of one kind of rows: how they are written, found and read.

::

    results/date=2026-01-31/<name>.parquet             one put, soon to be replaced: *fresh*
    results/date=2026-01-31/compacted-<name>.parquet   many puts, sorted; counts if listed
    results/values/<name>                              one big payload, named by its row
    results/manifest/000000000042.json                 the newest one counts
    results/manifest/claim                             somebody compacts just now

A *manifest* lists the compacted segments that count, and the objects that do not count any more
and are to be deleted. Changing what counts means to create the manifest of the next number,
which only one of several writers can do. Whoever wants a consistent view reads the newest
manifest, lists the fresh segments, and starts again if there is a newer manifest by then.

A fresh segment may be deleted as soon as a manifest replaced it, because readers keep fresh rows
in memory; a compacted one is read in place, so it stays for a while (`GRACE`). Whoever finds
that a segment vanished takes a new view.

Not here: which of two rows counts (`results`, `events`), and when to compact (`compaction`).
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omniq_nb.errors import StoreError, StoreVersionError
from omniq_nb.storage.objects.bucket import Bucket

LAYOUT = 1
"""The version of the layout, in every manifest. A newer one is refused."""

GRACE = 600.0
"""Seconds that a compacted segment outlives its replacement, for queries under way."""

RELIST = 60.0
"""Seconds after which folders of old dates are listed again: a clock may be days behind."""

LATE = 3600.0
"""Seconds around midnight in which another clock may say another date."""

CACHED = 64 * 1024 * 1024
"""Bytes of rows kept in memory beside the fresh ones."""

OWN = 1_000
"""Fresh segments of our own of which the rows are kept until we look at them."""

MANIFESTS_KEPT = 5
COMPACTED = "compacted-"

Key = tuple[str, int, tuple[str, ...]]
"""A path, a row group, columns."""

T = TypeVar("T")


class Kind(NamedTuple):
    """What differs between results and events.

    Attributes
    ----------
    folder : str
        Of everything of this kind.
    schema : pyarrow.Schema
        The columns of its segments.
    shown : pyarrow.Schema
        Those of them that scans give, and that are kept in memory of fresh segments.
    id, time : str
        The columns that identify a row, and that say when it happened.
    order : str
        The column by which compacted segments are sorted, so that its statistics tell which
        row group can hold a row.
    expires : str or None
        The column that says when a row may be purged.
    group : int
        Rows in a row group.
    encoded : tuple of str
        Columns in which the same values come again and again.
    """

    folder: str
    schema: pa.Schema
    shown: pa.Schema
    id: str
    time: str
    order: str
    expires: str | None
    group: int
    encoded: tuple[str, ...]


class Segment(msgspec.Struct, frozen=True):
    """A compacted segment. Times are microseconds since 1970.

    Attributes
    ----------
    path : str
        In the bucket.
    rows, size : int
        Rows, and the bytes that they take in memory.
    since, until : int or None
        The first and last time of a row. None: no row has one.
    expires : int or None
        When the first row expires.
    """

    path: str
    rows: int
    size: int
    since: int | None = None
    until: int | None = None
    expires: int | None = None


class Garbage(msgspec.Struct, frozen=True):
    """An object that counts no more and is deleted some time after `after` (seconds)."""

    path: str
    after: float


class Manifest(msgspec.Struct, frozen=True):
    """What counts. See the module. `writer` makes it unlike that of any other writer."""

    version: int
    segments: tuple[Segment, ...] = ()
    garbage: tuple[Garbage, ...] = ()
    layout: int = LAYOUT
    writer: str = ""


class View(NamedTuple):
    """A consistent view: each row that counts is in exactly one of these segments.

    Attributes
    ----------
    manifest : Manifest
        With the compacted segments.
    fresh : tuple of str
        The paths of the fresh ones, oldest first.
    """

    manifest: Manifest
    fresh: tuple[str, ...]


class Group(NamedTuple):
    """A row group of a compacted segment.

    Attributes
    ----------
    segment : Segment
        Of which it is part.
    number : int
        Which part, from 0.
    low, high : bytes, int or None
        Bounds of the column by which the segment is sorted: text as UTF-8, times as
        microseconds. None: there are no statistics, so anything may be in it.
    tokens : tuple of int, or None
        Bounds of the column `token`, likewise.
    """

    segment: Segment
    number: int
    low: Any
    high: Any
    tokens: tuple[int, int] | None


class Vanished(StoreError):
    """A segment of the view at hand was deleted since: take a new one."""

    def __init__(self) -> None:
        super().__init__("A segment that should be there is missing: was it deleted by hand?")


class Segments:
    """The segments of one kind in one bucket. Safe to use from several threads at once.

    Parameters
    ----------
    bucket : Bucket
        Where they lie.
    kind : Kind
        What they hold.
    """

    def __init__(self, bucket: Bucket, kind: Kind) -> None:
        self.bucket = bucket
        self.kind = kind
        self._lock = threading.Lock()
        self._view: View | None = None
        self._listings: dict[str, tuple[object, list[str]]] = {}
        self._folders: set[str] = set()
        self._relist_at = 0.0
        self._fresh: dict[str, pa.Table] = {}
        self._own: OrderedDict[str, pa.Table] = OrderedDict()
        self._groups: dict[str, list[Group]] = {}
        self._cache = Cache(CACHED)

    def open(self) -> None:
        """Create the first manifest, or check that we understand the newest one."""
        self.bucket.open()
        if self._newest() is None:
            first = Manifest(version=0, writer=new_name())
            self.bucket.create(self._manifest_path(0), msgspec.json.encode(first))
        self.view()

    # ---------------------------------------------------------------- writing

    def publish(self, rows: pa.Table, mark: str = "") -> None:
        """Store rows as one fresh segment. `mark` ends its name."""
        path = f"{self.dated_folder()}/{new_name()}{mark}.parquet"
        data = pa.BufferOutputStream()
        # So few rows are not worth dictionaries and statistics, which would double the time.
        pq.write_table(
            rows,
            data,
            compression="snappy",
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
        )
        # Spare us reading them; nobody looks for them there before the segment is listed.
        self._own[path] = self._shown(rows)
        self._cache.put(self._key(path), rows)
        while len(self._own) > OWN:
            self._own.popitem(last=False)
        self.bucket.write({path: data.getvalue().to_pybytes()})

    def write_compacted(self, rows: pa.Table, folder: str) -> Segment:
        """Store sorted rows as one segment, which does not count before it is committed."""
        kind = self.kind
        data = pa.BufferOutputStream()
        # Row groups are read whole, so rows with big payloads must not make them huge.
        fitting = 64 * 1024 * 1024 * rows.num_rows // max(1, rows.nbytes)
        pq.write_table(
            rows,
            data,
            row_group_size=max(1, min(kind.group, fitting)),
            compression="zstd",
            use_dictionary=list(kind.encoded),
            write_statistics=[name for name in kind.schema.names if name != "payload"],
            store_schema=False,
        )
        path = f"{folder}/{COMPACTED}{new_name()}.parquet"
        since, until = _bounds(rows[kind.time])
        segment = Segment(
            path=path,
            rows=rows.num_rows,
            size=rows.nbytes,
            since=since,
            until=until,
            expires=_bounds(rows[kind.expires])[0] if kind.expires else None,
        )
        self.bucket.write({path: data.getvalue().to_pybytes()})
        return segment

    def commit(
        self,
        view: View,
        added: Sequence[Segment],
        removed: Sequence[Segment],
        fresh: Sequence[str],
        others: Sequence[str] = (),
    ) -> bool:
        """Let `added` count instead of `removed` and `fresh`. False: somebody was faster.

        Parameters
        ----------
        view : View
            From which the change was derived.
        added, removed : sequence of Segment
            Compacted segments.
        fresh : sequence of str
            Paths of fresh segments.
        others : sequence of str
            Paths of more objects to be deleted: values that no row names any more.
        """
        now = time.time()
        old = view.manifest
        over = [garbage for garbage in old.garbage if garbage.after <= now]
        # What a manifest no longer mentions must be gone: listed, it would count again.
        self.bucket.delete(garbage.path for garbage in over)
        manifest = Manifest(
            version=old.version + 1,
            segments=(*(s for s in old.segments if s not in removed), *added),
            garbage=(
                *(garbage for garbage in old.garbage if garbage.after > now),
                *(Garbage(path, now) for path in (*fresh, *others)),
                *(Garbage(segment.path, now + GRACE) for segment in removed),
            ),
            writer=new_name(),
        )
        path = self._manifest_path(manifest.version)
        if not self.bucket.create(path, msgspec.json.encode(manifest)):
            return False
        self.bucket.delete([*fresh, *others])
        for path in fresh:
            self._cache.drop(self._key(path))
        for number in sorted(self._manifest_numbers()):
            if number <= manifest.version - MANIFESTS_KEPT:
                self.bucket.delete([self._manifest_path(number)])
        return True

    def dated_folder(self, now: float | None = None) -> str:
        """Give the folder of what is written now: the date is UTC."""
        date = datetime.fromtimestamp(time.time() if now is None else now, UTC)
        return f"{self.kind.folder}/date={date:%Y-%m-%d}"

    # ---------------------------------------------------------------- looking

    def view(self) -> View:
        """Give what counts now. It includes whatever was stored before the call."""
        with self._lock:
            while True:
                newest = self._newest()
                if newest is None:
                    raise StoreError(f"{self.bucket.url(self.kind.folder)} lost its manifest")
                manifest = None if self._view is None else self._view.manifest
                if manifest is None or newest != manifest.version:
                    (data,) = self.bucket.read([self._manifest_path(newest)])
                    if data is None:
                        continue
                    manifest = self._decode(data)
                view = View(manifest, self._list_fresh(manifest))
                if self._newest() == newest:
                    break
            if view != self._view:
                self._view = view
            return self._view

    def orphans(self, before: float) -> list[str]:
        """Compacted segments written before that time which no manifest ever let count."""
        with self._lock:
            self._relist_at = 0.0
        view = self.view()
        known = {segment.path for segment in view.manifest.segments}
        known |= {garbage.path for garbage in view.manifest.garbage}
        return [
            path
            for folder in self._dated_folders()
            for name in self._names(folder)
            if name.startswith(COMPACTED)
            and (path := f"{folder}/{name}") not in known
            and written_at(name.removeprefix(COMPACTED)) < before
        ]

    def _newest(self) -> int | None:
        if self._view is not None and not self.bucket.immediate:
            # A listing in a cloud costs as much as a write, and two reads tell as well: manifests
            # are deleted oldest first, so while the known one is there, no newer one is gone.
            known = self._view.manifest.version
            if not self._is_there(known + 1) and self._is_there(known):
                return known
        return max(self._manifest_numbers(), default=None)

    def _is_there(self, version: int) -> bool:
        (data,) = self.bucket.read([self._manifest_path(version)])
        return data is not None

    def _manifest_numbers(self) -> list[int]:
        names = self._names(f"{self.kind.folder}/manifest")
        return [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]

    def _manifest_path(self, version: int) -> str:
        return f"{self.kind.folder}/manifest/{version:012}.json"

    def _decode(self, data: bytes) -> Manifest:
        manifest = msgspec.json.decode(data, type=Manifest)
        if manifest.layout > LAYOUT:
            raise StoreVersionError(
                f"{self.bucket.url(self.kind.folder)} has layout {manifest.layout}; this version "
                f"of omniq_nb knows {LAYOUT}. Upgrade omniq_nb."
            )
        return manifest

    def _list_fresh(self, manifest: Manifest) -> tuple[str, ...]:
        """Look for fresh segments where there can be news."""
        known = self._view.fresh if self._view is not None else ()
        if time.monotonic() < self._relist_at:
            # Writers put into today's folder. What a new manifest replaced may lie in any
            # folder that had fresh segments.
            now = time.time()
            recent, *others = (self.dated_folder(now + away) for away in (-LATE, 0.0, LATE))
            if self.bucket.immediate:
                folders = set(self._dated_folders())
            else:
                folders = self._folders | {recent, *others}
            held = set()
            if self._view is not None and manifest is not self._view.manifest:
                held = {_folder(path) for path in known}
            looked_at = {folder for folder in folders if folder >= recent or folder in held}
        else:
            self._folders = folders = looked_at = set(self._dated_folders())
            self._relist_at = time.monotonic() + RELIST
        replaced = {garbage.path for garbage in manifest.garbage}
        fresh = [
            path
            for folder in looked_at
            for name in self._names(folder)
            if not name.startswith(COMPACTED) and (path := f"{folder}/{name}") not in replaced
        ]
        skipped = folders - looked_at
        fresh += [path for path in known if _folder(path) in skipped]
        return tuple(sorted(fresh, key=by_age))

    def _dated_folders(self) -> list[str]:
        kind = self.kind.folder
        return [f"{kind}/{name}" for name in self._names(kind) if name.startswith("date=")]

    def _names(self, folder: str) -> list[str]:
        """List a folder, unless it is certain that nothing changed."""
        stamp = self.bucket.stamp(folder)
        known = self._listings.get(folder)
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        names = self.bucket.names(folder)
        self._listings[folder] = (stamp, names)
        return names

    # ---------------------------------------------------------------- reading

    def fresh_rows(self, view: View) -> dict[str, pa.Table]:
        """Give the rows of the fresh segments by path, oldest first, as a scan shows them."""
        with self._lock:
            known = dict(self._fresh)
            for path in view.fresh:
                if path not in known and (own := self._own.pop(path, None)) is not None:
                    known[path] = own
            missing = [path for path in view.fresh if path not in known]
            # Whole, into the cache: who looks for a row here soon wants all of it.
            known.update((path, self._shown(rows)) for path, rows in self._whole(missing))
            self._fresh = {path: known[path] for path in view.fresh}
            return self._fresh

    def whole(self, paths: Sequence[str]) -> dict[str, pa.Table]:
        """Give fresh segments with all their columns; our own recent ones are still in memory."""
        return dict(self._whole(paths))

    def read_group(self, path: str, group: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of one row group, or remember them."""
        key = (path, group, tuple(columns))
        rows = self._cache.get(key)
        if rows is None:
            rows = self._read(path, columns, lambda file, names: file.read_row_group(group, names))
            self._cache.put(key, rows)
        return rows

    def read(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a segment."""
        return self._read(path, columns, lambda file, names: file.read(names))

    def reread(self, path: str) -> pa.Table:
        """Read a whole segment anew, past what is remembered of it."""
        ((_, rows),) = self._read_whole([path])
        return rows

    def groups(self, segments: Iterable[Segment]) -> list[Group]:
        """Give the row groups of all compacted segments of a view."""
        wanted = tuple(segments)
        known = self._groups
        groups = {s.path: known.get(s.path) or self._read_groups(s) for s in wanted}
        self._groups = groups
        return [group for segment in wanted for group in groups[segment.path]]

    def _read_groups(self, segment: Segment) -> list[Group]:
        try:
            with self.bucket.reader(segment.path) as source:
                metadata = pq.read_metadata(source)
        except FileNotFoundError:
            raise Vanished from None
        groups = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            bounds = {}
            for index in range(group.num_columns):
                column = group.column(index)
                known = column.statistics
                if (
                    column.path_in_schema in (self.kind.order, "token")
                    and known is not None
                    and known.has_min_max
                ):
                    bounds[column.path_in_schema] = (known.min_raw, known.max_raw)
            low, high = bounds.get(self.kind.order, (None, None))
            groups.append(Group(segment, number, low, high, bounds.get("token")))
        return groups

    def _read(
        self,
        path: str,
        columns: Sequence[str],
        read: Callable[[pq.ParquetFile, list[str]], pa.Table],
    ) -> pa.Table:
        try:
            with self.bucket.reader(path) as source:
                file = pq.ParquetFile(source)
                present = [name for name in columns if name in file.schema_arrow.names]
                return self._conform(read(file, present), columns)
        except FileNotFoundError:
            raise Vanished from None
        except pa.ArrowException as error:
            raise self._damaged(path, error) from error

    def _shown(self, rows: pa.Table) -> pa.Table:
        return rows.select(self.kind.shown.names)

    def _whole(self, paths: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Read fresh segments, or remember them."""
        missing = []
        for path in paths:
            rows = self._cache.get(self._key(path))
            if rows is None:
                missing.append(path)
            else:
                yield path, rows
        for path, rows in self._read_whole(missing):
            self._cache.put(self._key(path), rows)
            yield path, rows

    def _key(self, path: str) -> Key:
        """Under which the cache has a fresh segment."""
        return path, 0, tuple(self.kind.schema.names)

    def _read_whole(self, paths: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        names = self.kind.schema.names
        for path, data in zip(paths, self.bucket.read(paths), strict=True):
            if data is None:
                self._relist_at = 0.0
                raise Vanished
            try:
                # These settings suit small files: threads and read-ahead cost more than they give.
                file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
                rows = file.read(names, use_threads=False)
            except pa.ArrowException as error:
                raise self._damaged(path, error) from error
            yield path, self._conform(rows, names)

    def _conform(self, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        """Give the columns in this order; those that an older version did not know are null."""
        if rows.column_names == list(columns):
            return rows
        present = set(rows.column_names)
        fields = [self.kind.schema.field(name) for name in columns]
        return pa.table(
            [
                rows[field.name] if field.name in present else pa.nulls(len(rows), field.type)
                for field in fields
            ],
            schema=pa.schema(fields),
        )

    def _damaged(self, path: str, error: Exception) -> StoreError:
        return StoreError(
            f"The segment {self.bucket.url(path)!r} is damaged ({error}). After a power cut "
            "without fsync that may happen; move it out of the folder to go on without it."
        )


class Cache:
    """Tables, of which the ones not used for long are dropped.

    Parameters
    ----------
    limit : int
        Bytes to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._lock = threading.Lock()
        self._tables: OrderedDict[Key, tuple[pa.Table, int]] = OrderedDict()

    def get(self, key: Key) -> pa.Table | None:
        """Give a table, if it is still there."""
        with self._lock:
            if key not in self._tables:
                return None
            self._tables.move_to_end(key)
            return self._tables[key][0]

    def put(self, key: Key, rows: pa.Table) -> None:
        """Keep a table for now."""
        self.drop(key)
        with self._lock:
            self._tables[key] = (rows, rows.nbytes)
            self._size += rows.nbytes
            while self._size > self._limit and len(self._tables) > 1:
                self._size -= self._tables.popitem(last=False)[1][1]

    def drop(self, key: Key) -> None:
        """Forget a table."""
        with self._lock:
            self._size -= self._tables.pop(key, (None, 0))[1]


def retrying(look: Callable[[], T]) -> T:
    """Repeat a reading operation whose view has grown too old."""
    for _ in range(20):
        try:
            return look()
        except Vanished:
            continue
    return look()


_last_name = 0
_name_lock = threading.Lock()


def new_name() -> str:
    """Make a name that sorts by time, and within this process by order of the calls."""
    global _last_name
    with _name_lock:
        _last_name = max(_last_name + 1, time.time_ns())
        return f"{_last_name:016x}{os.urandom(6).hex()}"


def written_at(name: str) -> float:
    """When an object of that name was written, in seconds since 1970."""
    return int(name[:16], 16) / 1e9


def by_age(path: str) -> str:
    """Give the part of a path by which segments are sorted."""
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _bounds(column: pa.ChunkedArray) -> tuple[int | None, int | None]:
    bounds = pc.min_max(column.cast(pa.int64()))
    return bounds["min"].as_py(), bounds["max"].as_py()
