"""A log in a bucket: one object for each entry.

::

    log/0000000042.entry               one entry, never changed
    checkpoints/0000000040.checkpoint  the state after entry 40
    blobs/<random>                     big payloads of one enqueued batch

**Exclusive creation** is the cloud's: a PUT on condition that the name is free.

**Trimming.** Entries go when a checkpoint that covers them is `TRIM_AFTER` older than another
one, both times by the cloud's own clock: no two machines' clocks are compared. So whoever knew
the end of the log less than that ago, by its own clock, may take an absent object for the end,
and an object that it could create for a part of the log. Whoever knew it longer ago than half of
that (it slept, or its request took that long) first looks at the newest checkpoint. If that
covers the number in question, the log went on without it, and it is `Behind`.

Not here: folding and retrying (`omniq_nb.storage.journal.replica`), and what comes of an answer
that was lost (`connection`).
"""

import secrets
import time
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress

from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.storage.buckets.connection import Connection
from omniq_nb.storage.journal.log import (
    TORN,
    Behind,
    Entry,
    PiecewiseLog,
    seal,
    unreadable,
    unseal,
)
from omniq_nb.storage.local import ABANDONED

ENTRY, CHECKPOINT = ".entry", ".checkpoint"

TRIM_AFTER = 600.0
"""Seconds that entries stay after they were covered."""

WIDEST = 64
"""Entries that are asked for at once by whoever has much to catch up."""

BUSY = 10.0
"""Seconds after an entry of somebody else for which one looks before one writes: looking is
cheaper than losing, and some servers let the loser of a race wait for seconds."""


class BucketLog(PiecewiseLog):
    """See the module.

    Parameters
    ----------
    connection : Connection
        Shared.
    folder : str
        In which it lies.
    """

    immediate = False
    slow = False
    poll = (0.05, 4.0)
    rest = 5.0
    dear = 4  # each is a request of its own

    def __init__(self, connection: Connection, folder: str) -> None:
        self._connection = connection
        self._folder = folder
        self._known_at: _Moment | None = None  # when the end of the log was known
        self._ahead: tuple[int, bytes] | None = None  # an entry that was found by looking for news
        self._busy_until = 0.0

    # ---------------------------------------------------------------- the log

    async def open(self) -> None:
        """Refuse a bucket in which two writers could create the same object."""
        connection = self._connection
        await connection.open(self)
        try:
            if not connection.exclusive:
                raise StoreUnavailable(
                    f"{connection.name} does not keep two writers from creating the same object "
                    "(it ignores the condition If-None-Match: *, or its like), so it cannot hold "
                    "tasks or schedules: two workers would run one task. Results and events it "
                    "can hold: put task_queue and schedule_storage elsewhere, for example in "
                    "sqlite or postgres, or use a server with conditional writes."
                )
            if not await self._listed_checkpoints():
                first = Entry(secrets.token_bytes(16), 0, True, b"")
                await connection.create(self._checkpoint_path(0), seal(first))
        except BaseException:
            await self.close()
            raise
        self.ahead = connection.ahead

    async def close(self) -> None:
        """Let go of the connection."""
        await self._connection.close(self)

    async def size(self, number: int) -> int | None:
        """Fetch the next entry, if there is one, and keep it for `read`."""
        return 1 if self._is_stale() else await self._look(number)

    async def read(self, number: int) -> Sequence[Entry]:
        """Ask for one more, and the more at once the more there were."""
        started = _Moment()
        entries: list[Entry] = []
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == number:
            entries.append(unseal(ahead[1]) or TORN)
        width = 1
        while True:
            first = number + len(entries)
            paths = [self._entry_path(first + step) for step in range(width)]
            for data in await self._connection.get_all(paths):
                if data is None:
                    await self._vouch(number, started)
                    if entries:
                        self._busy_until = time.monotonic() + BUSY
                    return entries
                entries.append(unseal(data) or TORN)
            width = min(width * 4, WIDEST)

    async def append(self, number: int, entry: Entry) -> bool:
        """One request, if nobody was faster."""
        started = _Moment()
        if time.monotonic() < self._busy_until and await self._look(number):
            return False
        if not await self._connection.create(self._entry_path(number), seal(entry)):
            return False
        await self._vouch(number, started)
        return True

    async def confirm(self) -> None:
        """Nothing is left to do: what a cloud has acknowledged is safe."""

    # ---------------------------------------------------------------- checkpoints

    async def load(self) -> tuple[int, Entry | None]:
        """Give the newest one that can be read."""
        while True:
            started = _Moment()
            numbers = sorted(await self._listed_checkpoints(), reverse=True)
            for number in numbers:
                data = await self._connection.get(self._checkpoint_path(number))
                if data is None:
                    break  # trimmed since it was listed: list again
                if (checkpoint := unseal(data)) is not None:
                    self._known_at = started
                    self._ahead = None
                    return number, checkpoint if checkpoint.body else None
            else:
                folder = f"{self._connection.root}/{self._folder}"
                if numbers:
                    raise unreadable(f"Every checkpoint in {folder!r}")
                raise unreadable(f"The folder {folder!r}: it lost its checkpoints and")

    async def newest_checkpoint(self) -> int:
        """List the folder."""
        return max(await self._listed_checkpoints(), default=0)

    async def save(self, number: int, checkpoint: Entry) -> None:
        """Write it, then delete what has been covered for long enough."""
        await self._connection.put(self._checkpoint_path(number), seal(checkpoint))
        listed = await self._listed_checkpoints()
        horizon = listed.get(number, 0.0) - TRIM_AFTER
        floor = max((old for old, at in listed.items() if at <= horizon), default=0)
        trimmed = min(listed, default=0)
        if floor > trimmed:
            await self._connection.delete(map(self._entry_path, range(trimmed + 1, floor + 1)))
            await self._connection.delete(
                self._checkpoint_path(old) for old in listed if old < floor
            )

    # ---------------------------------------------------------------- blobs

    async def put_blob(self, name: str, parts: Sequence[bytes]) -> None:
        """Nobody knows of it before it is there."""
        await self._connection.put(self._blob_path(name), b"".join(parts))

    async def get_blob(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Read what is asked for, and what lies between."""
        return await self._connection.get_parts(self._blob_path(name), spans)

    async def delete_blobs(self, names: Iterable[str]) -> None:
        """As far as possible."""
        with suppress(StoreError):
            await self._connection.delete(map(self._blob_path, names))

    async def sweep_blobs(self, keep: Container[str]) -> None:
        """By the time at which they were written."""
        found = await self.blobs()
        await self._connection.delete(
            self._blob_path(name) for name, old in found.items() if old and name not in keep
        )

    # ---------------------------------------------------------------- pieces

    async def entries(self) -> list[int]:
        """List the folder."""
        found = await self._connection.list(f"{self._folder}/log")
        names = (one.name.removesuffix(ENTRY) for one in found)
        return [int(name) for name in names if name.isdecimal()]

    async def checkpoints(self) -> list[int]:
        """List the folder."""
        return list(await self._listed_checkpoints())

    async def is_whole(self, checkpoint: int) -> bool:
        """Read it."""
        data = await self._connection.get(self._checkpoint_path(checkpoint))
        return data is None or unseal(data) is not None

    async def blobs(self) -> dict[str, bool]:
        """By the time at which they were written."""
        horizon = time.time() + self.ahead - ABANDONED
        found = await self._connection.list(f"{self._folder}/blobs")
        return {blob.name: blob.modified < horizon for blob in found}

    async def delete_entries(self, numbers: Sequence[int]) -> None:
        """All at once."""
        await self._connection.delete(map(self._entry_path, numbers))

    # ---------------------------------------------------------------- inside

    def _entry_path(self, number: int) -> str:
        return f"{self._folder}/log/{number:010}{ENTRY}"

    def _checkpoint_path(self, number: int) -> str:
        return f"{self._folder}/checkpoints/{number:010}{CHECKPOINT}"

    def _blob_path(self, name: str) -> str:
        return f"{self._folder}/blobs/{name}"

    async def _listed_checkpoints(self) -> dict[int, float]:
        """Numbers, and when they were written by the cloud's clock."""
        found = await self._connection.list(f"{self._folder}/checkpoints")
        names = ((one.name.removesuffix(CHECKPOINT), one.modified) for one in found)
        return {int(name): modified for name, modified in names if name.isdecimal()}

    async def _look(self, number: int) -> int | None:
        data = await self._connection.get(self._entry_path(number))
        if data is None:
            return None
        self._ahead = number, data
        return len(data)

    def _is_stale(self) -> bool:
        return self._known_at is None or self._known_at.age() > TRIM_AFTER / 2

    async def _vouch(self, number: int, started: "_Moment") -> None:
        """Say that the entry of that number has not been deleted up to now, or raise."""
        if self._is_stale() and await self.newest_checkpoint() >= number:
            raise Behind
        self._known_at = started


class _Moment:
    """A moment, and how long ago it was: also across the sleep of a machine, or a set clock."""

    def __init__(self) -> None:
        self._monotonic = time.monotonic()
        self._time = time.time()

    def age(self) -> float:
        """Seconds since then, rather too many than too few."""
        return max(time.monotonic() - self._monotonic, time.time() - self._time)
