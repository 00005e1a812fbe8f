"""Permits: which of the tasks that a child process was sent it may start.

Tasks are numbered as they are sent, from 1 on. Before it starts one the child reads the next
number from a pipe of its own. Its parent, which holds the reading end too, reads back what the
child has not read: an exact recall of all that is not started, even while the child is stuck
in C code. Of the tasks that it was sent the child drops those before the next number.

Not here: the tasks themselves (`omniq_nb.core.executors.process`, `omniq_nb.core.child`).
"""

import contextlib
import os
import select

SIZE = 8
"""Bytes of a number. Far below PIPE_BUF, so each is written and read as a whole."""

CAN_RECALL = os.name == "posix"
"""Whether there are permits. On Windows a child inherits no such pipe: it starts all it is sent."""


class Permits:
    """The parent's side, and the pipe.

    Attributes
    ----------
    descriptor : int
        The end for the child to inherit.
    """

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe()
        # Shared with the child: neither side may wait in a read that the other was quicker at.
        os.set_blocking(self.descriptor, False)

    def give(self, *numbers: int) -> None:
        """Permit the start of these tasks, in this order."""
        os.write(self._write, b"".join(number.to_bytes(SIZE, "big") for number in numbers))

    def recall(self) -> set[int]:
        """Take back, and tell, the numbers of the permitted tasks that are not started."""
        data = b""
        with contextlib.suppress(BlockingIOError):  # nothing to take back
            while more := os.read(self.descriptor, 1 << 16):
                data += more
        return {
            int.from_bytes(data[start : start + SIZE], "big") for start in range(0, len(data), SIZE)
        }

    def close(self) -> None:
        """Close both ends."""
        os.close(self.descriptor)
        os.close(self._write)


def wait(descriptor: int) -> int | None:
    """Wait, as the child, for the number of the task to start. None: the parent is gone."""
    while True:
        try:
            data = os.read(descriptor, SIZE)
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll()
        else:
            return int.from_bytes(data, "big") if data else None
