"""The result store."""

import math
from collections.abc import AsyncIterator, Sequence

from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim
from omniq_nb.storage.base import Query, ResultStore, Scan
from omniq_nb.storage.redis import scripts
from omniq_nb.storage.redis.database import RedisDatabase
from omniq_nb.storage.redis.rows import parts, result_of, result_row, steps, token_of
from omniq_nb.storage.shared import SharedStore

STEP = 500
"""Results that one call reads or deletes."""

STEP_BYTES = 4_000_000
"""Bytes after which a call reads no further result."""


class RedisResultStore(SharedStore[RedisDatabase], ResultStore):
    """Results on a Redis server; see `ResultStore`."""

    async def put(self, results: Sequence[Result]) -> None:
        """Store, in one call; see `ResultStore`."""
        database = self._database
        if results:
            await database.run(scripts.PUT_RESULTS, parts=parts(map(result_row, results)))

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """Read; see `ResultStore`."""
        found: list[Result | None] = []
        for some in steps(claims, STEP):
            keys = [self._database.key(f"result:{claim.id}") for claim in some]
            for claim, stored in zip(
                some, await self._database.command("MGET", *keys), strict=True
            ):
                counts = stored is not None and token_of(stored) == claim.token
                found.append(result_of(stored) if counts else None)
        return found

    async def scan(self, query: Query) -> Scan:
        """Read in the order of time, in steps; see `ResultStore`."""
        from omniq_nb.storage.redis.scan import scan
        from omniq_nb.storage.tables import RESULTS

        def results_of(stored: list[bytes]) -> list[Result]:
            return [result_of(each) for each in stored]

        return await scan(self._stored(query), results_of, RESULTS, "task_id", query)

    async def _stored(self, query: Query) -> AsyncIterator[list[bytes]]:
        """Give what finished in the range asked for, without payloads."""
        # Readers compare microseconds: a float that rounds to the bound must not be left out.
        since = "-inf" if query.since is None else repr(query.since - 1e-6)
        until = math.inf if query.until is None else query.until + 1e-6
        after, more = b"", 1
        while more:
            request = (after.decode(), since, until, STEP, STEP_BYTES)
            more, after, score, rows = await self._database.run(scripts.SCAN_RESULTS, request)
            since = score.decode()
            yield rows

    async def purge(self, now: float, before: float | None = None) -> int:
        """Delete, in steps; see `ResultStore`."""
        ranges = [("expires", repr(now))]
        if before is not None:
            ranges.append(("results", f"({before!r}"))
        purged = 0
        for by, range in ranges:
            while number := await self._database.run(scripts.PURGE_RESULTS, (by, range, STEP)):
                purged += number
        return purged
