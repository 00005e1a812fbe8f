"""The result store."""

from collections.abc import Sequence

from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim
from omniq_nb.storage.base import Query, ResultStore, Scan
from omniq_nb.storage.shared import SharedStore
from omniq_nb.storage.sql.database import CHUNK, Database, Transaction
from omniq_nb.storage.sql.rows import RESULT, columns, result_of, result_row

PUT = f"""
    INSERT INTO omniq_results ({columns(RESULT)}) VALUES {{rows}}
    ON CONFLICT (task_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in RESULT if name != "task_id")}
    WHERE excluded.token >= omniq_results.token
"""
GET = f"""
    WITH claims (task_id, token) AS (VALUES {{rows}})
    SELECT {columns(RESULT, "r.")}
    FROM claims JOIN omniq_results r ON r.task_id = claims.task_id AND r.token = claims.token
"""
DELETE_EXPIRED = """
    DELETE FROM omniq_results WHERE task_id IN
        (SELECT task_id FROM omniq_results WHERE expires_at <= ? LIMIT ?)
"""
DELETE_FINISHED = """
    DELETE FROM omniq_results WHERE task_id IN
        (SELECT task_id FROM omniq_results WHERE finished_at < ? LIMIT ?)
"""


async def put_results(tx: Transaction, results: Sequence[Result]) -> None:
    """Store results in a transaction of whoever settles their tasks."""
    newest: dict[str, Result] = {}
    for result in results:
        known = newest.get(result.task_id)
        if known is None or known.token <= result.token:
            newest[result.task_id] = result
    await tx.execute_each(PUT, [result_row(result) for result in newest.values()])


def size_of(results: Sequence[Result]) -> int:
    """How many bytes results have, roughly."""
    return sum(
        len(r.payload) + len(r.value or "") + len(r.output or "") + len(r.traceback or "") + 300
        for r in results
    )


class SqlResultStore(SharedStore[Database], ResultStore):
    """Results in a database; see `ResultStore`."""

    async def put(self, results: Sequence[Result]) -> None:
        """Store; see `ResultStore`."""
        if results:
            await self._database.write(lambda tx: put_results(tx, results), size_of(results))

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """Read; see `ResultStore`."""
        rows = await self._database.read(lambda tx: tx.fetch_each(GET, claims))
        found = {(result.task_id, result.token): result for result in map(result_of, rows)}
        return [found.get(claim) for claim in claims]

    async def scan(self, query: Query) -> Scan:
        """Read; see `ResultStore`."""
        from omniq_nb.storage.sql.scan import scan_results

        return await scan_results(self._database, query)

    async def purge(self, now: float, before: float | None = None) -> int:
        """Delete; see `ResultStore`."""
        purged = 0
        for statement, time in ((DELETE_EXPIRED, now), (DELETE_FINISHED, before)):
            if time is not None:
                purged += await self._delete(statement, time)
        return purged

    async def _delete(self, statement: str, time: float) -> int:
        deleted = 0
        while number := await self._database.write(lambda tx: tx.execute(statement, time, CHUNK)):
            deleted += number
        return deleted
