"""A log in a local folder, shared by any number of processes.

::

    log/0000000042.entry           one entry, created whole by a hard link, never changed
    checkpoints/0000000040.checkpoint  the state after entry 40
    blobs/<random>                 big payloads of one enqueued batch
    blobs/<hash>                   a bundle: what the calls of several tasks refer to
    drafts/<random>                entries and checkpoints being written

**Exclusive creation.** A draft is written, then linked to its final name, which fails if that
name exists. So nobody ever sees half an entry.

**Power cuts.** Before a durable entry is acknowledged (`confirm`), its bytes, those of all
entries before it, whoever wrote them, and their names are on the disk. Others (claims,
heartbeats) are not synced by themselves. What a power cut can tear or lose is therefore the end
of the log, and nothing in it was acknowledged as a fact; such entries count as empty. An entry
is linked first and synced then: that is one commit of the file system and not two, and whoever
waits for the entry need not wait for the disk. Each entry says how many before it were in doubt
when it was written, so that one process need not sync again what another one has. Without
`fsync` the same holds for a crash of a process, but not for a power cut.

**Trimming.** The two newest checkpoints stay. The *floor* is the older one's number: entries up
to it are deleted, and so are older checkpoints, always before any entry that only the newer
ones cover. A process may have slept while the log went on, and find its next number free
because the entry of that number is deleted already. So each process remembers one checkpoint
that it saw, not newer than its own state, and after a read or a link asks whether that file is
still there. If it is, no entry behind it was deleted before that moment, so what was read is
the log's end, and what was linked is part of the log. If it is gone, the floor tells.

Not here: folding and retrying (`replica`).
"""

# Plain strings for paths: in the hot path, making a Path costs as much as the system call.
# ruff: noqa: PTH105, PTH108, PTH110, PTH116, PTH123, PTH208

import os
import secrets
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from omniq_nb.errors import StoreUnavailable
from omniq_nb.storage.journal.log import TORN, Behind, Entry, PiecewiseLog, seal, unreadable, unseal
from omniq_nb.storage.local import abandoned, delete_abandoned

ENTRY, CHECKPOINT = ".entry", ".checkpoint"

MAX_UNSYNCED = 32
"""Entries that may await the next durable one; more would make that one slow."""


class FileLog(PiecewiseLog):
    """See the module.

    Parameters
    ----------
    folder : path
        Created if missing. It must be on a file system with hard links.
    fsync : bool
        Whether acknowledged facts must survive a power cut; a crash they always survive.
    """

    immediate = True
    poll = (0.002, 0.05)

    def __init__(self, folder: str | os.PathLike[str], fsync: bool = True) -> None:
        root = Path(folder)
        self._entries = str(root / "log")
        self._checkpoints = str(root / "checkpoints")
        self._blobs = str(root / "blobs")
        self._drafts = str(root / "drafts")
        self.slow = self._fsync = fsync
        self._witness = 0  # the number of the checkpoint whose presence vouches for the log
        self._last = 0  # the last entry that was read or written
        self._safe = 0  # up to here, no power cut can tear one

    # ---------------------------------------------------------------- the log

    async def open(self) -> None:
        """Create the folders and the empty checkpoint 0."""
        try:
            for folder in (self._entries, self._checkpoints, self._blobs, self._drafts):
                Path(folder).mkdir(parents=True, exist_ok=True)
            delete_abandoned(self._drafts)
            if not self._listed_checkpoints():
                first = Entry(secrets.token_bytes(16), 0, True, b"")
                self._write_draft(first, sync=self._fsync)
                self._link_draft(first, self._checkpoint_path(0))
                self._sync_folder(self._checkpoints)
        except OSError as error:
            raise StoreUnavailable(
                f"The folder {self._entries!r} cannot hold a log: {error}. It must be writable "
                "and on a file system with hard links."
            ) from error

    async def close(self) -> None:
        """Nothing stays open between two calls."""

    async def size(self, number: int) -> int | None:
        """Two looks at the file system."""
        try:
            return os.stat(self._entry_path(number)).st_size
        except FileNotFoundError:
            return None if self._witness_present() else 1

    async def read(self, number: int) -> Sequence[Entry]:
        """Try one name after the other: listing the folder would cost more each time."""
        entries: list[Entry] = []
        while (data := _read(self._entry_path(number + len(entries)))) is not None:
            entry = unseal(data) or TORN
            entries.append(entry)
            self._last = number + len(entries) - 1
            if entry.durable:  # of an early release, which synced before it linked
                self._safe = max(self._safe, self._last)
            elif entry.doubtful is not None:
                self._safe = max(self._safe, self._last - 1 - entry.doubtful)
        if not self._vouched(number):
            raise Behind
        return entries

    async def append(self, number: int, entry: Entry) -> bool:
        """Draft it, and link the draft."""
        doubtful = number - 1 - self._safe if self._fsync else None
        # Not durable, for those who read the header: it may be in the log and not on the disk.
        self._write_draft(msgspec.structs.replace(entry, durable=False, doubtful=doubtful), False)
        if not self._link_draft(entry, self._entry_path(number)):
            return False
        if not self._vouched(number):
            # Linked where an entry had been deleted. Nobody counts it; see "Trimming".
            Path(self._entry_path(number)).unlink(missing_ok=True)
            raise Behind
        self._last = number
        if self._last - self._safe > MAX_UNSYNCED:
            self._sync_entries()
        return True

    async def confirm(self) -> None:
        """Sync the entries in doubt, then the folder, for their names."""
        self._sync_entries()
        self._sync_folder(self._entries)

    # ---------------------------------------------------------------- checkpoints

    async def load(self) -> tuple[int, Entry | None]:
        """Find the newest one that is whole: without fsync, a power cut may have torn the last."""
        while numbers := self._listed_checkpoints():
            for number in reversed(numbers):
                data = _read(self._checkpoint_path(number))
                if data is None:
                    break  # trimmed since it was listed: list again
                if (checkpoint := unseal(data)) is not None:
                    self._witness = number
                    self._last = number
                    self._safe = max(self._safe, number)  # it covers them
                    return number, checkpoint if checkpoint.body else None
            else:
                raise unreadable(f"Every checkpoint in {self._checkpoints!r}")
        raise unreadable(f"The folder {self._checkpoints!r}: it lost its checkpoints and")

    async def newest_checkpoint(self) -> int:
        """List the folder."""
        return self._listed_checkpoints()[-1]

    async def save(self, number: int, checkpoint: Entry) -> None:
        """Link the new one, then delete what the one before it covers."""
        self._write_draft(checkpoint, sync=self._fsync)
        self._link_draft(checkpoint, self._checkpoint_path(number))
        self._sync_folder(self._checkpoints)
        numbers = self._listed_checkpoints()
        floor = _floor(numbers)
        for old in numbers:
            if old < floor:
                Path(self._checkpoint_path(old)).unlink(missing_ok=True)
        covered = [number for number in _numbers(self._entries, ENTRY) if number <= floor]
        await self.delete_entries(covered)

    # ---------------------------------------------------------------- blobs

    async def put_blob(self, name: str, parts: Sequence[bytes]) -> None:
        """Written aside, then renamed: a bundle may be put again while somebody reads it."""
        draft = f"{self._drafts}/{secrets.token_hex(16)}"
        _write(draft, parts, self._fsync)
        os.replace(draft, f"{self._blobs}/{name}")
        self._sync_folder(self._blobs)

    async def get_blob(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Read only what is asked for."""
        parts = []
        try:
            with open(f"{self._blobs}/{name}", "rb") as file:
                for offset, length in spans:
                    file.seek(offset)
                    parts.append(file.read(length))
        except FileNotFoundError:
            return None
        return parts

    async def delete_blobs(self, names: Iterable[str]) -> None:
        """Missing is fine: several processes may come to the same end."""
        for name in names:
            with suppress(OSError):
                os.unlink(f"{self._blobs}/{name}")

    async def sweep_blobs(self, keep: Container[str]) -> None:
        """By the time of their last change."""
        delete_abandoned(self._blobs, keep)

    # ---------------------------------------------------------------- pieces

    async def entries(self) -> list[int]:
        """List the folder."""
        return _numbers(self._entries, ENTRY)

    async def checkpoints(self) -> list[int]:
        """List the folder."""
        return self._listed_checkpoints()

    async def is_whole(self, checkpoint: int) -> bool:
        """Read it."""
        data = _read(self._checkpoint_path(checkpoint))
        return data is None or unseal(data) is not None

    async def blobs(self) -> dict[str, bool]:
        """By the time of their last change."""
        return abandoned(self._blobs)

    async def delete_entries(self, numbers: Sequence[int]) -> None:
        """One after the other."""
        for number in numbers:
            Path(self._entry_path(number)).unlink(missing_ok=True)

    # ---------------------------------------------------------------- inside

    def _entry_path(self, number: int) -> str:
        return f"{self._entries}/{number:010}{ENTRY}"

    def _checkpoint_path(self, number: int) -> str:
        return f"{self._checkpoints}/{number:010}{CHECKPOINT}"

    def _listed_checkpoints(self) -> list[int]:
        return _numbers(self._checkpoints, CHECKPOINT)

    def _write_draft(self, entry: Entry, sync: bool) -> None:
        _write(f"{self._drafts}/{entry.id.hex()}", (seal(entry),), sync)

    def _link_draft(self, entry: Entry, path: str) -> bool:
        """Give a draft its final name, if that is free; then drop the draft's own."""
        draft = f"{self._drafts}/{entry.id.hex()}"
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        os.unlink(draft)
        return True

    def _vouched(self, number: int) -> bool:
        """Whether the entry of that number cannot have been deleted up to now."""
        if self._witness_present():
            return True
        numbers = self._listed_checkpoints()
        if _floor(numbers) >= number:
            return False
        self._witness = max((known for known in numbers if known < number), default=0)
        return True

    def _witness_present(self) -> bool:
        return os.path.exists(self._checkpoint_path(self._witness))

    def _sync_entries(self) -> None:
        """Sync the bytes of those in doubt. Others may meanwhile write more."""
        last = self._last
        for number in range(self._safe + 1, last + 1) if self._fsync else ():
            with suppress(FileNotFoundError):  # trimmed: a checkpoint covers it
                _sync(self._entry_path(number), os.O_RDWR)
        self._safe = max(self._safe, last)

    def _sync_folder(self, folder: str) -> None:
        if not self._fsync or os.name == "nt":  # Windows has no such call and needs none
            return
        _sync(folder, os.O_RDONLY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None
    with open(file, "rb", buffering=0) as raw:
        return raw.readall()


def _write(path: str, parts: Sequence[bytes], sync: bool) -> None:
    """Create a file with these bytes, or none."""
    try:
        file = open(path, "xb", buffering=0)  # noqa: SIM115
    except FileExistsError:
        # An interrupted attempt. It may be linked elsewhere: never write into that file.
        os.unlink(path)
        file = open(path, "xb", buffering=0)  # noqa: SIM115
    with file:
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:  # a nearly full disk takes a part of it
                    rest = rest[file.write(rest) :]
            if sync:
                os.fsync(file.fileno())
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise


def _numbers(folder: str, suffix: str) -> list[int]:
    """List the numbers that name files in a folder, rising."""
    names = (name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix))
    return sorted(int(name) for name in names if name.isdecimal())


def _floor(checkpoints: Sequence[int]) -> int:
    """Tell up to which number entries may have been deleted: see "Trimming"."""
    return [0, 0, *checkpoints][-2]
