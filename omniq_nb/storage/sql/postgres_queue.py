"""The task queue where PostgreSQL can do a verb's common case in one statement.

A round trip costs more than what most statements do, so the busiest verbs make one of them. What
is uncommon (revived tasks, dependencies, retries, lost leases, expired tasks) is recognised and
left to the shared way, in which the rules stand.

Not here: those rules (`omniq_nb.storage.sql.transitions`).
"""

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from omniq_nb.models.result import Result
from omniq_nb.models.task import Settle, State, Task, WorkerInfo
from omniq_nb.storage.sql.database import Database, Transaction
from omniq_nb.storage.sql.postgres_connections import channel
from omniq_nb.storage.sql.postgres_statements import TYPES, arrays
from omniq_nb.storage.sql.postgres_transaction import PostgresTransaction, storable
from omniq_nb.storage.sql.queue import SqlTaskQueue
from omniq_nb.storage.sql.results import put_results, size_of
from omniq_nb.storage.sql.rows import (
    CALL,
    NEW_STANDING,
    TASK_COLUMNS,
    call_row,
    columns,
    new_standing_row,
    task_of,
)
from omniq_nb.storage.sql.schema import LIVE, RUNNING
from omniq_nb.storage.sql.transitions import LEVELS, Ending, end_dependents

FEW = 16
"""So many tasks at most are added by one statement; more are copied."""

_CLOCK = "extract(epoch FROM clock_timestamp())::float8"
_WHAT = (*CALL, "call")
_WHERE = NEW_STANDING[1:-1]  # all but seq and token
_GIVEN = ", ".join(f"${n}::{TYPES[name]}[]" for n, name in enumerate((*_WHAT, *_WHERE), start=2))

ADD = f"""
    WITH given AS (
        SELECT * FROM unnest({_GIVEN}) WITH ORDINALITY AS g ({columns((*_WHAT, *_WHERE))}, n)
    ), called AS (
        INSERT INTO omniq_calls ({columns(_WHAT)}) SELECT {columns(_WHAT)} FROM given ORDER BY n
        ON CONFLICT (id) DO NOTHING RETURNING seq, id
    ), placed AS (
        INSERT INTO omniq_tasks (seq, token, {columns(_WHERE)})
        SELECT seq, 0, {columns(_WHERE)} FROM called JOIN given USING (id)
    )
    SELECT id, pg_notify($1, '') FROM called
"""
# Which of these tasks are there as we added them?
OURS = """
    SELECT c.id FROM unnest($1::text[], $2::float8[], $3::bytea[]) AS g (id, created_at, call)
    JOIN omniq_calls c USING (id) WHERE c.created_at = g.created_at AND c.call = g.call
"""

_LEVELS = LEVELS.replace("?", "$1").partition("SELECT priority, (")[0].strip()
# First whether something odd is due: then nothing is claimed. Else each claimed task.
CLAIM = f"""
    {_LEVELS}, clock AS MATERIALIZED (
        SELECT {_CLOCK} AS now
    ), due AS MATERIALIZED (
        SELECT found.* FROM clock, (
            SELECT priority FROM levels WHERE priority IS NOT NULL ORDER BY priority DESC
        ) AS level, LATERAL (
            SELECT seq, priority, available_at, state, expires_at FROM omniq_tasks t
            WHERE t.queue = $1 AND t.{LIVE} AND t.priority = level.priority
                AND t.available_at <= clock.now
            ORDER BY t.available_at, t.seq LIMIT $2 FOR UPDATE OF t SKIP LOCKED
        ) AS found LIMIT $2
    ), odd AS MATERIALIZED (
        SELECT 1 FROM due, clock WHERE state = 'running' OR expires_at <= clock.now LIMIT 1
    ), claimed AS (
        UPDATE omniq_tasks t SET
            state = 'running', token = token + 1, attempt = attempt + 1, worker = $3,
            started_at = clock.now, finished_at = NULL, available_at = clock.now + $4
        FROM due, clock WHERE t.seq = due.seq AND NOT EXISTS (SELECT 1 FROM odd)
        RETURNING t.*, due.available_at AS due_at
    )
    SELECT EXISTS (SELECT 1 FROM odd), {TASK_COLUMNS}, c.call
    FROM (SELECT) AS always
        LEFT JOIN (claimed t JOIN omniq_calls c ON c.seq = t.seq) ON TRUE
    ORDER BY t.priority DESC, t.due_at, t.seq
"""
# What a worker was given after a certain claim of its own: it asks for one after the other.
CLAIMED_SINCE = f"""
    SELECT {TASK_COLUMNS}, c.call FROM omniq_tasks t JOIN omniq_calls c ON c.seq = t.seq
    WHERE t.queue = ANY($1::text[]) AND t.state = 'running' AND t.worker = $2 AND t.started_at > $3
    ORDER BY array_position($1::text[], t.queue), t.priority DESC, t.seq
"""

SETTLE = f"""
    UPDATE omniq_tasks t SET
        state = e.state, started_at = e.started_at, error = e.error,
        finished_at = coalesce(e.finished_at, {_CLOCK})
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::float8[], $5::float8[], $6::text[])
        AS e (id, token, state, started_at, finished_at, error)
        JOIN omniq_calls c ON c.id = e.id
    WHERE t.seq = c.seq AND {RUNNING.format("t.state")} AND t.token = e.token
    RETURNING e.id, t.seq, t.finished_at, pg_current_xact_id()::text
"""

DUE_IN = f"""
    SELECT min(earliest.available_at) - {_CLOCK} FROM unnest($1::text[]) AS q (queue), LATERAL (
        {LEVELS.replace("?", "q.queue").replace("SELECT priority, (", "SELECT (", 1)}
    ) AS earliest (available_at)
"""

BEAT = """
    WITH beat AS (
        INSERT INTO omniq_workers (id, heartbeat_at, info) VALUES ($1, $2, $3)
        ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, info = excluded.info
    )
    SELECT info FROM omniq_workers WHERE id <> $1 UNION ALL SELECT $3
"""


class PostgresTaskQueue(SqlTaskQueue):
    """Tasks in PostgreSQL; see `TaskQueue`.

    Parameters
    ----------
    database : Database
        Where it lives.
    schema : str
        The schema there: who waits for work listens to its channel.
    """

    def __init__(self, database: Database, schema: str) -> None:
        super().__init__(database)
        self._channel = channel(schema)
        self._claimed_at: dict[str, float] = {}

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        """Enqueue; see `TaskQueue`."""
        ids = {task.id for task in tasks}
        common = not revive and not any(task.depends_on for task in tasks)
        if not common or not 0 < len(tasks) <= FEW or len(ids) < len(tasks):
            return await super().add(tasks, revive)
        added = await self._add_few(tasks)
        return [task.id in added for task in tasks]

    async def _add_few(self, tasks: Sequence[Task]) -> set[str]:
        placed = [new_standing_row(0, task, 0) for task in tasks]
        rows = [
            (*call_row(0, task)[1:], *place[1:-1])
            for task, place in zip(tasks, placed, strict=True)
        ]
        begun = False

        async def work(tx: Transaction) -> set[str]:
            nonlocal begun
            again, begun = begun, True
            added = {id for id, _ in await tx.fetch(ADD, self._channel, *arrays(rows))}
            if again:  # the first answer was lost: what is known now may be known from us
                created_at, call = _WHAT.index("created_at"), _WHAT.index("call")
                asked = [(row[0], row[created_at], row[call]) for row in rows]
                added |= {id for (id,) in await tx.fetch(OURS, *arrays(asked))}
            if added:
                tx.notify()
            return added

        return await self._database.read(work)

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        """Lease; see `TaskQueue`."""
        begun = False

        async def work(tx: Transaction) -> list[Task] | None:
            nonlocal begun
            again, begun = begun, True
            tasks: list[Task] = []
            if again:  # the first answer was lost, perhaps with tasks in it
                since = self._claimed_at.get(worker, 0.0)
                tasks += map(task_of, await tx.fetch(CLAIMED_SINCE, list(queues), worker, since))
            for queue in queues:
                if len(tasks) < limit:
                    room = limit - len(tasks)
                    rows = await tx.fetch(CLAIM, queue, room, worker, float(lease))
                    if rows[0][0]:
                        return tasks or None
                    tasks += [task_of(row[1:]) for row in rows if row[1] is not None]
            return tasks

        tasks = await self._database.read(work)
        if tasks is None:
            tasks = await super().claim(queues, limit, lease, worker)
        if tasks:
            self._in_vain = 0
            self._claimed_at[worker] = max(task.started_at or 0.0 for task in tasks)
        return tasks

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        """Apply outcomes; see `TaskQueue`."""
        if not outcomes or any(outcome.to is State.QUEUED for outcome in outcomes):
            return await super().settle(outcomes, results)
        rows = storable(
            [(o.id, o.token, o.to.value, o.started_at, o.finished_at, o.error) for o in outcomes],
            ("id", "token", "state", "started_at", "finished_at", "error"),
        )

        async def work(tx: Transaction) -> list[bool]:
            assert isinstance(tx, PostgresTransaction)
            ended = {row[0]: row for row in await tx.fetch(SETTLE, *arrays(rows))}
            accepted = [outcome for outcome in outcomes if outcome.id in ended]
            if accepted:
                tx.id = ended[accepted[0].id][3]
            endings = [
                Ending(o.id, ended[o.id][1], o.to, o.started_at, ended[o.id][2], o.error)
                for o in accepted
            ]
            await end_dependents(tx, endings)
            claims = {(outcome.id, outcome.token) for outcome in accepted}
            await put_results(tx, [r for r in results if (r.task_id, r.token) in claims])
            return [outcome.id in ended for outcome in outcomes]

        return await self._database.write(work, size_of(results))

    async def workers(self, beat: WorkerInfo | None = None) -> list[WorkerInfo]:
        """Record and list; see `TaskQueue`."""
        if beat is None:
            return await super().workers()
        info = msgspec.json.encode(beat).decode()
        rows = await self._database.read(
            lambda tx: tx.fetch(BEAT, beat.id, beat.heartbeat_at, info)
        )
        known = (msgspec.json.decode(info, type=WorkerInfo) for (info,) in rows)
        return sorted(known, key=attrgetter("id"))

    async def _due_in(self, queues: Sequence[str]) -> float | None:
        rows = await self._database.read(lambda tx: tx.fetch(DUE_IN, list(queues)))
        seconds: float | None = rows[0][0]
        return seconds
