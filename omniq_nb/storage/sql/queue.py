"""The task queue. Its transitions are in `omniq_nb.storage.sql.transitions`."""

import time
from collections.abc import Sequence

import msgspec

from omniq_nb.models.result import Result
from omniq_nb.models.task import STATES, Claim, Settle, State, Task, WorkerInfo
from omniq_nb.storage.base import BUNDLE_KEPT, Query, ResultStore, Scan, TaskQueue
from omniq_nb.storage.shared import SharedStore
from omniq_nb.storage.sql import transitions
from omniq_nb.storage.sql.database import CHUNK, Database, Transaction
from omniq_nb.storage.sql.results import SqlResultStore, put_results, size_of
from omniq_nb.storage.sql.rows import TASK_COLUMNS, task_of, words
from omniq_nb.storage.sql.schema import ENDED, LIVE

GET = f"""
    WITH wanted (id) AS (VALUES {{rows}})
    SELECT {TASK_COLUMNS}
    FROM wanted JOIN omniq_calls c ON c.id = wanted.id JOIN omniq_tasks t ON t.seq = c.seq
"""
COUNT_LIVE = f"""
    SELECT queue,
        count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running')
    FROM omniq_tasks WHERE {LIVE} GROUP BY queue
"""
COUNT_BLOCKED = "SELECT queue, count(*) FROM omniq_tasks WHERE state = 'blocked' GROUP BY queue"
COUNT_ENDED = f"SELECT queue, state, count(*) FROM omniq_tasks WHERE {ENDED} GROUP BY queue, state"

BEAT = """
    INSERT INTO omniq_workers (id, heartbeat_at, info) VALUES (?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, info = excluded.info
"""
WORKERS = "SELECT info FROM omniq_workers ORDER BY id"

PURGEABLE = f"""
    SELECT t.seq FROM omniq_tasks t
    WHERE t.{ENDED} AND t.finished_at < ? AND NOT EXISTS (
        SELECT 1 FROM omniq_calls c JOIN omniq_dependencies d ON d.needed = c.id
        WHERE c.seq = t.seq
    )
    LIMIT ?
"""
PURGE_WORKERS = "DELETE FROM omniq_workers WHERE heartbeat_at < ?"

KNOWS_BUNDLE = "UPDATE omniq_bundles SET put_at = ? WHERE name = ?"
PUT_BUNDLE = """
    INSERT INTO omniq_bundles (name, put_at, content) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET put_at = excluded.put_at
"""
GET_BUNDLE = "SELECT content FROM omniq_bundles WHERE name = ?"
NEEDED_BUNDLES = "SELECT DISTINCT bundles FROM omniq_calls WHERE bundles <> '[]'"
OLD_BUNDLES = "SELECT name FROM omniq_bundles WHERE put_at < ?"
DELETE_BUNDLE = "DELETE FROM omniq_bundles WHERE name = ? AND put_at < ?"

MUST_WAIT = (0.0, 0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds to wait although something is due, by how often nothing could be claimed."""


class SqlTaskQueue(SharedStore[Database], TaskQueue):
    """Tasks in a database; see `TaskQueue`."""

    _in_vain = 0

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        """Enqueue; see `TaskQueue`."""
        if not tasks:
            return []
        size = sum(len(task.call) + len(task.arguments) + 300 for task in tasks)
        return await self._database.write(lambda tx: transitions.add(tx, tasks, revive), size)

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        """Lease; see `TaskQueue`."""
        tasks = await self._database.write(
            lambda tx: transitions.claim(tx, queues, limit, lease, worker)
        )
        if tasks:
            self._in_vain = 0
        return tasks

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """Keep leases; see `TaskQueue`."""
        return await self._database.write(lambda tx: transitions.extend(tx, claims, lease))

    async def held_by(self, worker: str) -> list[Claim]:
        """Look them up; see `TaskQueue`."""
        rows = await self._database.read(lambda tx: tx.fetch(transitions.HELD_BY, worker))
        return [Claim(*row) for row in rows]

    def commits_with(self, results: ResultStore) -> bool:
        """Whether they share a database; see `TaskQueue`."""
        return isinstance(results, SqlResultStore) and results.is_in(self._shared)

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        """Apply outcomes; see `TaskQueue`."""

        async def work(tx: Transaction) -> list[bool]:
            settled = await transitions.settle(tx, outcomes)
            if results:
                pairs = zip(outcomes, settled, strict=True)
                accepted = {(outcome.id, outcome.token) for outcome, ok in pairs if ok}
                await put_results(tx, [r for r in results if (r.task_id, r.token) in accepted])
            return settled

        return await self._database.write(work, size_of(results)) if outcomes else []

    async def transition(self, ids: Sequence[str], to: State) -> list[State | None]:
        """Move by hand; see `TaskQueue`."""
        return await self._database.write(lambda tx: transitions.move(tx, ids, to))

    async def put_bundle(self, name: str, data: bytes) -> None:
        """Store, unless it is there; see `TaskQueue`."""

        async def work(tx: Transaction) -> None:
            now = time.time()
            if not await tx.execute(KNOWS_BUNDLE, now, name):
                await tx.execute(PUT_BUNDLE, name, now, data)

        await self._database.write(work, len(data))

    async def get_bundle(self, name: str) -> bytes | None:
        """Read; see `TaskQueue`."""
        rows = await self._database.read(lambda tx: tx.fetch(GET_BUNDLE, name))
        return rows[0][0] if rows else None

    async def get(self, ids: Sequence[str]) -> list[Task | None]:
        """Read; see `TaskQueue`."""
        rows = await self._database.read(lambda tx: tx.fetch_each(GET, [(id,) for id in ids]))
        tasks = {task.id: task for task in map(task_of, rows)}
        return [tasks.get(task_id) for task_id in ids]

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Watch for changes until something is due; see `TaskQueue`."""
        ends_at = time.monotonic() + timeout
        with self._database.watch() as watch:
            while (left := ends_at - time.monotonic()) > 0:
                seconds = await self._due_in(queues)
                if seconds is not None and seconds <= 0:
                    # What is due and cannot be claimed is locked by somebody, who may be frozen.
                    await watch.changed(min(left, MUST_WAIT[self._in_vain]))
                    self._in_vain = min(self._in_vain + 1, len(MUST_WAIT) - 1)
                    return
                if await watch.changed(left if seconds is None else min(left, seconds)):
                    return

    async def _due_in(self, queues: Sequence[str]) -> float | None:
        """Seconds until the next task of these queues is due. None: there is none."""

        async def work(tx: Transaction) -> float | None:
            found = [earliest for q in queues for _, earliest in await transitions.levels(tx, q)]
            return min(found) - await tx.now() if found else None

        return await self._database.read(work)

    async def counts(self) -> dict[tuple[str, State], int]:
        """Count; see `TaskQueue`."""

        async def work(tx: Transaction) -> dict[tuple[str, State], int]:
            counts = {}
            for queue, queued, running in await tx.fetch(COUNT_LIVE):
                counts[queue, State.QUEUED] = queued
                counts[queue, State.RUNNING] = running
            for queue, blocked in await tx.fetch(COUNT_BLOCKED):
                counts[queue, State.BLOCKED] = blocked
            for queue, state, ended in await tx.fetch(COUNT_ENDED):
                counts[queue, STATES[state]] = ended
            return {key: number for key, number in counts.items() if number}

        return await self._database.read(work)

    async def workers(self, beat: WorkerInfo | None = None) -> list[WorkerInfo]:
        """Record and list; see `TaskQueue`."""
        if beat is not None:
            info = msgspec.json.encode(beat).decode()
            await self._database.write(
                lambda tx: tx.execute(BEAT, beat.id, beat.heartbeat_at, info)
            )
        rows = await self._database.read(lambda tx: tx.fetch(WORKERS))
        return [msgspec.json.decode(info, type=WorkerInfo) for (info,) in rows]

    async def scan(self, query: Query) -> Scan:
        """Read; see `TaskQueue`."""
        from omniq_nb.storage.sql.scan import scan_tasks

        return await scan_tasks(self._database, query)

    async def purge(self, before: float) -> int:
        """Forget; see `TaskQueue`."""

        async def some(tx: Transaction) -> int:
            rows = await tx.fetch(PURGEABLE, before, CHUNK)
            await tx.execute_each(transitions.DELETE_CALLS, rows)
            await tx.execute_each(transitions.DELETE_TASKS, rows)
            return len(rows)

        await self._database.write(lambda tx: tx.execute(PURGE_WORKERS, before))
        purged = 0
        while number := await self._database.write(some):
            purged += number
        await self._database.write(self._purge_bundles)
        return purged

    @staticmethod
    async def _purge_bundles(tx: Transaction) -> None:
        horizon = time.time() - BUNDLE_KEPT
        old = {name for (name,) in await tx.fetch(OLD_BUNDLES, horizon)}
        if old:
            for (needed,) in await tx.fetch(NEEDED_BUNDLES):
                old.difference_update(words(needed))
        for name in old:
            await tx.execute(DELETE_BUNDLE, name, horizon)
