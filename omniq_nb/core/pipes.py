"""Frames through a pipe: eight bytes of length, then so many bytes.

Not here: what the frames say (`omniq_nb.core.child`).
"""

import os
import select
from typing import IO

AT_ONCE = 1 << 16
"""Bytes that are read or written at once: many short frames, or all that a pipe holds."""


def send(stream: IO[bytes], *frames: bytes) -> None:
    """Write frames."""
    for frame in frames:
        stream.write(len(frame).to_bytes(8, "big"))
        stream.write(frame)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Read one frame.

    Raises
    ------
    EOFError
        The other side is gone.
    """
    return _exactly(stream, int.from_bytes(_exactly(stream, 8), "big"))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


class Receiver:
    """Reads frames, and can wait for one without reading it.

    Parameters
    ----------
    descriptor : int
        The end of the pipe to read from.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = bytearray()

    @property
    def pending(self) -> bool:
        """Whether something of the next frame is here already."""
        return bool(self._data)

    @property
    def whole(self) -> bool:
        """Whether all of the next frame is here already."""
        data = self._data
        return len(data) >= 8 and len(data) >= 8 + int.from_bytes(data[:8], "big")

    def wait(self, seconds: float) -> bool:
        """Whether a frame, or the end, came or began to come within that time. Not on Windows."""
        if self._data:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def receive(self) -> bytes:
        """Read one frame.

        Raises
        ------
        EOFError
            The other side is gone.
        """
        self._fill(8)
        end = 8 + int.from_bytes(self._data[:8], "big")
        self._fill(end)
        frame = bytes(memoryview(self._data)[8:end])
        del self._data[:end]
        return frame

    def _fill(self, size: int) -> None:
        while len(self._data) < size:
            data = os.read(self._descriptor, max(AT_ONCE, size - len(self._data)))
            if not data:
                raise EOFError
            self._data += data
