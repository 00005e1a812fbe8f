"""A deep check of segments: pieces that are torn, missing, or needed by nobody.

Not here: which pieces there are, and which count (`segments`).
"""

import time

from omniq_nb.errors import StoreError
from omniq_nb.storage.objects.compaction import ORPHANED, values_of
from omniq_nb.storage.objects.segments import Segments, Vanished, View, written_at
from omniq_nb.storage.upkeep import Finding

VALUES_ORPHANED = 24 * 3600.0
"""Seconds after which a value that no row names is a dead process's remains."""


def values_folder(segments: Segments) -> str:
    """Give the folder of big payloads."""
    return f"{segments.kind.folder}/values"


def orphaned_values(segments: Segments, view: View, now: float) -> list[str]:
    """Find big payloads whose writer died before it could store the row that names them."""
    folder = values_folder(segments)
    old = {
        f"{folder}/{name}"
        for name in segments.bucket.names(folder)
        if written_at(name) < now - VALUES_ORPHANED
    }
    if old:
        for path in (*view.fresh, *(segment.path for segment in view.manifest.segments)):
            old.difference_update(values_of(segments.read(path, ("payload_object",))))
    return sorted(old)


def inspect(segments: Segments, repair: bool) -> list[Finding]:
    """Read every segment that counts, and look for what does not.

    Parameters
    ----------
    segments : Segments
        Of one kind.
    repair : bool
        Delete what nobody can need any more.
    """
    now = time.time()
    orphans = segments.orphans(now - ORPHANED)
    found = []
    if orphans:
        if repair:
            segments.bucket.delete(orphans)
        what = "written by a compaction that was not finished: they do not count"
        found.append(Finding(f"{len(orphans)} segments", what, repaired=repair))
    torn: dict[str, Finding] = {}
    while True:
        view = segments.view()
        named: set[str] = set()
        try:
            for path in (*view.fresh, *(segment.path for segment in view.manifest.segments)):
                if path in torn:
                    continue
                try:
                    named.update(values_of(segments.reread(path)))
                except Vanished:
                    if segments.view() != view:
                        raise
                    torn[path] = Finding(path, "missing: its rows are lost", harm=True)
                except StoreError as error:
                    torn[path] = Finding(path, f"torn: {error}", harm=True)
            break
        except Vanished:
            continue  # somebody compacted meanwhile
    found += torn.values()
    if "payload_object" in segments.kind.schema.names and not torn:
        folder = values_folder(segments)
        there = {f"{folder}/{name}" for name in segments.bucket.names(folder)}
        lost = sorted(named - there)
        found += [Finding(path, "missing: the value is lost", harm=True) for path in lost]
        needless = orphaned_values(segments, view, now)
        if needless:
            if repair:
                segments.bucket.delete(needless)
            what = "older than a day, and no result names them"
            found.append(Finding(f"{len(needless)} values", what, repaired=repair))
    return found
