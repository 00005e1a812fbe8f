"""Events as rows in a stream."""

from collections.abc import Sequence
from typing import ClassVar

from omniq_nb.models.event import Event
from omniq_nb.storage.base import EventStore, Query, Scan
from omniq_nb.storage.nats.columns import ArrowBuilder, Gone, Rows, rows_of, unpack
from omniq_nb.storage.nats.connection import Connection
from omniq_nb.storage.nats.frames import Frame
from omniq_nb.storage.nats.rows import RowStream

NAMES = Event.__struct_fields__


class NatsEventStore(EventStore):
    """The history in a stream; see `omniq_nb.storage.base.EventStore`.

    Parameters
    ----------
    connection : Connection
        Shared.
    """

    immediate: ClassVar[bool] = False

    def __init__(self, connection: Connection) -> None:
        self._rows = RowStream(connection, "events")

    async def open(self) -> None:
        """Make the stream; see `Store`."""
        await self._rows.open()

    async def close(self) -> None:
        """See `Store`."""
        await self._rows.close()

    async def append(self, events: Sequence[Event]) -> None:
        """Store as one frame."""
        self._rows.check_open()
        if events:
            await self._rows.append(rows_of(events, NAMES))

    async def scan(self, query: Query) -> Scan:
        """Read what was stored since the time asked for."""
        from omniq_nb.storage.tables import EVENTS, one_of_each, select

        self._rows.check_open()
        wanted = select(EVENTS, query.columns)
        with_id = select(EVENTS, tuple(dict.fromkeys((*wanted.names, "id"))))
        builder = ArrowBuilder(with_id)

        def take(frame: Frame) -> None:
            rows = unpack(frame.data)
            if isinstance(rows, Rows) and _may_match(rows, query):
                builder.add(rows)

        await self._rows.replay(take, query.since)
        return Scan(one_of_each(builder.table(), "id").select(wanted.names))

    async def purge(self, before: float) -> int:
        """Delete frames, and store what is left of those that hold younger events too."""
        self._rows.check_open()
        old: set[object] = set()
        gone: list[tuple[int, int]] = []
        told: list[tuple[int, int]] = []
        left: list[Rows] = []
        firsts: list[int] = []

        def take(frame: Frame) -> None:
            rows = unpack(frame.data)
            if isinstance(rows, Gone):
                gone.extend(rows.frames)
                told.append((frame.first, frame.seq))
                return
            times = rows.column("at")
            young = [number for number, at in enumerate(times) if at >= before]  # type: ignore[operator]
            if len(young) == rows.count:
                firsts.append(frame.first)
                return
            gone.append((frame.first, frame.seq))
            young_ones = rows.only(young)
            if young:
                left.append(young_ones)
            ids = rows.column("id")
            old.update(ids)
            old.difference_update(young_ones.column("id"))

        read = await self._rows.replay(take)
        for rows in left:
            await self._rows.append(rows)
        if gone or len(told) > 1:
            await self._rows.delete(gone, told, oldest=min(firsts, default=read + 1))
        return len(old)


def _may_match(rows: Rows, query: Query) -> bool:
    times: list[float] = rows.column("at")  # type: ignore[assignment]
    return (query.until is None or min(times) < query.until) and (
        query.since is None or max(times) >= query.since
    )
