"""The event store: pages of events in one sorted set.

Not a stream: its ids are the order of arrival, and events may arrive late, so a range of time
would not be a range of ids. Pages have equal scores, hence are ordered as texts, and begin with
the minute of their events (`rows.pages_of`). A page is sent again under the same name, which
makes it the same page; an event that is in two pages is dropped by whoever scans.
"""

from collections.abc import AsyncIterator, Sequence

from omniq_nb.models.event import Event
from omniq_nb.storage.base import EventStore, Query, Scan
from omniq_nb.storage.redis import scripts
from omniq_nb.storage.redis.database import RedisDatabase
from omniq_nb.storage.redis.rows import (
    PAGE_SECONDS,
    before_pages,
    behind_page,
    events_of,
    page_without,
    pages_of,
    text,
    truths,
)
from omniq_nb.storage.shared import SharedStore

STEP_FIRST, STEP_LAST = 20, 2_000
"""Pages that one call reads."""

STEP_BYTES = 2_000_000
"""Bytes that a call should read, about."""


class RedisEventStore(SharedStore[RedisDatabase], EventStore):
    """Events on a Redis server; see `EventStore`."""

    async def append(self, events: Sequence[Event]) -> None:
        """Store, in one command; see `EventStore`."""
        database = self._database
        if events:
            scored = (word for page in pages_of(events) for word in (0, page))
            await database.command("ZADD", database.key("events"), *scored)

    async def scan(self, query: Query) -> Scan:
        """Read pages in the order of time, in steps; see `EventStore`."""
        from omniq_nb.storage.redis.scan import scan
        from omniq_nb.storage.tables import EVENTS

        def of_pages(pages: list[bytes]) -> list[Event]:
            return [event for page in pages for event in events_of(page)]

        return await scan(self._pages(query.since, query.until), of_pages, EVENTS, "id", query)

    async def purge(self, before: float) -> int:
        """Replace pages by what is left of them; see `EventStore`."""
        purged = 0
        async for pages in self._pages(None, before):
            changes, numbers = [], []
            for page in pages:
                events = events_of(page)
                left = [event for event in events if event.at >= before]
                if len(left) < len(events):
                    changes.append((text(page), text(page_without(page, left))))
                    numbers.append(len(events) - len(left))
            if changes:
                replaced = truths(await self._database.run(scripts.REPLACE_EVENTS, (changes,)))
                purged += sum(n for n, ok in zip(numbers, replaced, strict=True) if ok)
        return purged

    async def _pages(self, since: float | None, until: float | None) -> AsyncIterator[list[bytes]]:
        """Give the pages that may have events of that range."""
        database = self._database
        # Readers compare microseconds: what rounds to the bound must not be left out.
        first = b"-" if since is None else b"(" + before_pages(since - 1e-6)
        end = b"+" if until is None else b"(" + before_pages(until + 1e-6 + PAGE_SECONDS)
        step = STEP_FIRST
        while True:
            pages: list[bytes] = await database.command(
                "ZRANGEBYLEX", database.key("events"), first, end, "LIMIT", 0, step
            )
            yield pages
            if len(pages) < step:
                return
            first = b"(" + behind_page(pages[-1])
            average = sum(map(len, pages)) // len(pages)
            step = min(max(1, STEP_BYTES // average), STEP_LAST)
