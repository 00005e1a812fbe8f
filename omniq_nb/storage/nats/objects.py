"""Big payloads beside a log or beside rows: bytes under a name, cut into messages.

Each part is a message of a subject of its own, ``SUBJECT.NAME.N``: so a part is read by its name,
and all parts are deleted by one request. All but the last have the same length.
"""

import time
from collections.abc import Container, Iterable, Sequence
from functools import partial

from omniq_nb.storage.local import ABANDONED
from omniq_nb.storage.nats.frames import cut, publish, uncut
from omniq_nb.storage.nats.streams import Stream


class Objects:
    """Named bytes in a stream.

    Parameters
    ----------
    stream : Stream
        Where they are.
    subject : str
        Theirs alone.
    """

    def __init__(self, stream: Stream, subject: str) -> None:
        self._stream = stream
        self._subject = subject

    async def put(self, name: str, data: bytes) -> None:
        """Store, as a whole."""
        connection = self._stream.connection
        parts = enumerate(cut(connection, data))
        messages = [(f"{self._subject}.{name}.{number}", part) for number, part in parts]
        await connection.again(partial(publish, connection, messages))

    async def get(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Give some of the bytes, each by offset and length. None: they were deleted."""
        first = await self._parts(name, [0])
        if first is None:
            return None
        parts = {0: first[0]}
        size = len(first[0]) or 1
        needed = {
            number
            for offset, length in spans
            for number in range(offset // size, -(-(offset + length) // size))
        }
        numbers = sorted(needed - {0})
        others = await self._parts(name, numbers)
        if others is None:
            return None
        parts.update(zip(numbers, others, strict=True))
        found = []
        for offset, length in spans:
            start = offset // size
            stop = -(-(offset + length) // size)
            joined = b"".join(parts[number] for number in range(start, stop))
            found.append(joined[offset - start * size :][:length])
        return found

    async def delete(self, name: str) -> None:
        """Delete it. Missing is fine."""
        await self._stream.purge(f"{self._subject}.{name}.*")

    async def sweep(self, keep: Container[str]) -> None:
        """Delete what is old and not in `keep`: its writer died."""
        horizon = time.time() - ABANDONED
        prefix = f"{self._subject}."
        names = {
            subject.removeprefix(prefix).partition(".")[0]
            for subject in await self._stream.subjects(f"{prefix}>")
        }
        for name in names:
            if name not in keep:
                stored = await self._stream.last(f"{prefix}{name}.0")
                if stored is not None and stored.time < horizon:
                    await self.delete(name)

    async def _parts(self, name: str, numbers: Iterable[int]) -> list[bytes] | None:
        subjects = [f"{self._subject}.{name}.{number}" for number in numbers]
        parts = []
        for stored in await self._stream.named(subjects):
            if stored is None:
                return None
            parts.append(uncut(stored.data))
        return parts
