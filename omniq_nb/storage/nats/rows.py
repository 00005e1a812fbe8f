"""What results and events have in common: batches of rows, each stored as a whole, in a stream.

::

    PREFIX-events    PREFIX.events    one frame for each append
    PREFIX-results   PREFIX.results   one frame for each put

To delete some rows of a frame, what is left of it is stored again, and then the frame deleted.
So a reader who finds a frame gone finds its rows further on, if he reads until nothing was
deleted while he read. Before frames are deleted, one that says so (`Gone`) is put behind all
others, and afterwards another one takes its place, which says that nothing is left to do. Thus
the newest message always exists, and who reads along hears what is gone, or sees that he missed
it.

A row is never in a message that is much older than the row: whoever wants rows since some time
starts with the messages since then, less the skew of clocks.

Not here: which of several rows counts (`results`, `events`).
"""

from collections.abc import Callable, Sequence
from functools import partial

from omniq_nb.errors import StoreClosed
from omniq_nb.storage.nats import frames
from omniq_nb.storage.nats.columns import Gone, Rows, pack
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.feed import Feed
from omniq_nb.storage.nats.frames import Frame
from omniq_nb.storage.nats.streams import Stream

SKEW = 30.0
"""Seconds by which two clocks may differ."""


class RowStream:
    """A stream of rows.

    Parameters
    ----------
    connection : Connection
        Shared.
    what : str
        What the rows are: part of the stream's name.
    """

    def __init__(self, connection: Connection, what: str) -> None:
        self.connection = connection
        self.stream = Stream(connection, what)
        self._what = what
        self._open = False

    async def open(self, *others: Stream) -> None:
        """Make the stream, and other ones."""
        await self.connection.open(self)
        try:
            for stream in (self.stream, *others):
                await stream.ensure()
        except BaseException:
            await self.connection.close(self)
            raise
        self._open = True

    async def close(self) -> None:
        """Refuse further use."""
        self._open = False
        await self.connection.close(self)

    def check_open(self) -> None:
        """Refuse use before `open` and after `close`."""
        if not self._open:
            raise StoreClosed(f"The store of {self._what} is closed.")

    async def append(self, content: Rows | Gone) -> tuple[int, int]:
        """Store, again if need be: a row that is stored twice counts once.

        Returns the sequence numbers of the first and the last message.
        """
        parts = frames.cut(self.connection, pack(content))
        messages = [(self.stream.subject, part) for part in parts]
        seq = await self.connection.again(partial(frames.publish, self.connection, messages))
        return seq - len(parts) + 1, seq

    async def replay(self, take: Callable[[Frame], None], since: float | None = None) -> int:
        """Read all frames that hold rows since that time, until nothing is missing.

        Returns the number up to which they were read.
        """
        feed = Feed(self.stream, take)
        feed.begin(0, None if since is None else since - SKEW)
        state = await self.stream.state()
        try:
            while True:
                await feed.reach(state.last_seq)
                deleted = state.deleted
                state = await self.stream.state()
                if state.deleted == deleted:
                    return feed.position
        finally:
            await feed.stop()

    async def delete(
        self, gone: Sequence[tuple[int, int]], told: Sequence[tuple[int, int]], oldest: int
    ) -> None:
        """Delete frames, after saying that they are gone; and what said so before.

        Parameters
        ----------
        gone, told : sequence of (int, int)
            First and last sequence numbers: of frames, and of earlier `Gone`.
        oldest : int
            Whatever has a lower number is among them.
        """
        before = max((seq for _, seq in told), default=0)
        saying = await self.append(Gone(list(gone), before))
        await self.stream.purge(below=oldest)
        await self._delete_messages([*gone, *told], oldest)
        await self.append(Gone([], saying[1]))
        await self._delete_messages([saying], oldest)

    async def _delete_messages(self, ranges: Sequence[tuple[int, int]], oldest: int) -> None:
        await self.stream.delete(
            seq for first, last in ranges for seq in range(max(first, oldest), last + 1)
        )
