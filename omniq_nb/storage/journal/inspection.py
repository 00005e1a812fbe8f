"""A deep check of a log: pieces that are torn, missing, or needed by nobody.

Not here: the log's own rules (`file_log`, `omniq_nb.storage.buckets.log`).
"""

from collections.abc import Collection, Sequence

from omniq_nb.storage.journal.log import TORN, Behind, PiecewiseLog
from omniq_nb.storage.upkeep import Finding


async def inspect(log: PiecewiseLog, blobs: Collection[str], repair: bool) -> list[Finding]:
    """Look at every piece. The caller holds the replica's lock.

    Parameters
    ----------
    log : PiecewiseLog
        The log.
    blobs : collection of str
        Names of blobs that the newest state needs.
    repair : bool
        Delete what nobody can need any more.
    """
    while True:
        try:
            return await _inspect(log, blobs, repair)
        except Behind:
            continue  # checkpoints were saved meanwhile


async def _inspect(log: PiecewiseLog, blobs: Collection[str], repair: bool) -> list[Finding]:
    checkpoints = sorted(await log.checkpoints())
    entries = sorted(await log.entries())
    found: list[Finding] = []
    torn = [number for number in checkpoints if not await log.is_whole(number)]
    if torn:
        what = "torn, so an older checkpoint and the entries after it are used instead"
        found.append(Finding(f"checkpoints {_numbers(torn)}", what, harm=len(torn) > 1))
    whole = [number for number in checkpoints if number not in torn]
    newest = max(whole, default=0)
    leftover = [number for number in entries if number <= min(checkpoints, default=0)]
    if leftover:
        if repair:
            await log.delete_entries(leftover)
        what = "below the oldest checkpoint: written or left by a process that slept or died"
        found.append(Finding(f"entries {_numbers(leftover)}", what, repaired=repair))
    last = max(entries, default=0)
    missing = sorted(set(range(newest + 1, last + 1)).difference(entries))
    if missing:
        what = "missing, so nobody reads the entries after them"
        found.append(Finding(f"entries {_numbers(missing)}", what, harm=True))
    read = await log.read(newest + 1)
    damaged = [newest + 1 + place for place, entry in enumerate(read) if entry is TORN]
    if damaged:
        what = "torn, and so counted as empty: what was in them is lost"
        found.append(Finding(f"entries {_numbers(damaged)}", what, harm=True))
    return found + await _blobs(log, blobs, repair)


async def _blobs(log: PiecewiseLog, needed: Collection[str], repair: bool) -> list[Finding]:
    found = []
    ages = await log.blobs()
    lost = sorted(set(needed).difference(ages))
    if lost:
        what = "missing: tasks whose arguments were in them cannot run"
        found.append(Finding(f"blobs {', '.join(lost)}", what, harm=True))
    over = [name for name, abandoned in ages.items() if abandoned and name not in needed]
    if over:
        if repair:
            await log.delete_blobs(over)
        what = "older than a day, and no task needs them: their writer died"
        found.append(Finding(f"{len(over)} blobs", what, repaired=repair))
    return found


def _numbers(numbers: Sequence[int]) -> str:
    if len(numbers) <= 5:
        return ", ".join(map(str, numbers))
    return f"{numbers[0]} to {numbers[-1]} ({len(numbers)})"
