"""What `omniq_nb.machine` says, as statements in a transaction.

Rows are read and locked first; then it is decided here what becomes of them; then they are
written in bulk. So each rule stands once, in Python, and each statement does one thing.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from omniq_nb.machine import (
    CANCELLED_ERROR,
    EXPIRED_ERROR,
    LOST_ERROR,
    MAX_LOST,
    REQUEUEABLE,
    dependency_error,
)
from omniq_nb.models.task import LIVE as UNFINISHED
from omniq_nb.models.task import STATES, Claim, Settle, State, Task
from omniq_nb.storage.sql.database import Row, Transaction
from omniq_nb.storage.sql.rows import (
    CALL,
    NEW_STANDING,
    TASK_COLUMNS,
    call_row,
    columns,
    new_standing_row,
    task_of,
    words,
)
from omniq_nb.storage.sql.schema import LIVE, RUNNING

INSERT_CALLS = f"""
    INSERT INTO omniq_calls (seq, {columns(CALL)}, call) VALUES {{rows}}
    ON CONFLICT (id) DO NOTHING
"""
INSERT_TASKS = f"INSERT INTO omniq_tasks ({columns(NEW_STANDING)}) VALUES {{rows}}"
INSERTED = "SELECT seq FROM omniq_calls WHERE seq >= ?"
DELETE_CALLS = "DELETE FROM omniq_calls WHERE seq IN (VALUES {rows})"
DELETE_TASKS = "DELETE FROM omniq_tasks WHERE seq IN (VALUES {rows})"

# The priorities in use in a queue, highest first, and when the earliest task of each is due: two
# steps into the index for each, however many tasks have it. With max() and min() PostgreSQL would
# read them all as long as it takes the table, which was filled a moment ago, for an empty one.
LEVELS = f"""
    WITH RECURSIVE levels (priority) AS (
        SELECT (
            SELECT priority FROM omniq_tasks WHERE queue = ? AND {LIVE}
            ORDER BY priority DESC LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT priority FROM omniq_tasks
            WHERE queue = ? AND {LIVE} AND priority < levels.priority
            ORDER BY priority DESC LIMIT 1
        )
        FROM levels WHERE levels.priority IS NOT NULL
    )
    SELECT priority, (
        SELECT available_at FROM omniq_tasks
        WHERE queue = ? AND {LIVE} AND priority = levels.priority
        ORDER BY available_at LIMIT 1
    )
    FROM levels WHERE priority IS NOT NULL ORDER BY priority DESC
"""
PICK = f"""
    SELECT {TASK_COLUMNS}, c.call
    FROM omniq_tasks t JOIN omniq_calls c ON c.seq = t.seq
    WHERE t.queue = ? AND t.{LIVE} AND t.priority = ? AND t.available_at <= ?
    ORDER BY t.available_at, t.seq LIMIT ? {{skip_locked}}
"""
CLAIM = """
    UPDATE omniq_tasks SET
        state = 'running', token = token + 1, attempt = attempt + 1,
        worker = ?, started_at = ?, finished_at = NULL, available_at = ?
    WHERE seq IN (VALUES {rows})
"""
COUNT_LOSS = "UPDATE omniq_tasks SET lost = lost + 1 WHERE seq IN (VALUES {rows})"

HELD = f"""
    WITH claims (id, token) AS (VALUES {{rows}})
    SELECT c.id, t.token, t.seq
    FROM claims JOIN omniq_calls c ON c.id = claims.id JOIN omniq_tasks t ON t.seq = c.seq
    WHERE {RUNNING.format("t.state")} AND t.token = claims.token {{lock}}
"""
# The index of live tasks spares it those that are over.
HELD_BY = f"""
    SELECT c.id, t.token FROM omniq_tasks t JOIN omniq_calls c ON c.seq = t.seq
    WHERE t.{LIVE} AND t.state = 'running' AND t.worker = ?
"""
EXTEND = "UPDATE omniq_tasks SET available_at = ? WHERE seq IN (VALUES {rows})"
END = """
    WITH ended (seq, state, started_at, finished_at, error) AS (VALUES {rows})
    UPDATE omniq_tasks SET
        state = ended.state, started_at = ended.started_at,
        finished_at = ended.finished_at, error = ended.error
    FROM ended WHERE omniq_tasks.seq = ended.seq
"""
RETRY = """
    WITH again (seq, available_at, started_at, finished_at, error) AS (VALUES {rows})
    UPDATE omniq_tasks SET
        state = 'queued', available_at = again.available_at, started_at = again.started_at,
        finished_at = again.finished_at, error = again.error
    FROM again WHERE omniq_tasks.seq = again.seq
"""
RELEASE = """
    UPDATE omniq_tasks SET
        state = 'queued', attempt = attempt - 1, started_at = NULL, available_at = ?
    WHERE seq IN (VALUES {rows})
"""
FENCE_OFF = f"""
    UPDATE omniq_tasks SET token = token + 1
    WHERE {RUNNING.format("state")} AND seq IN (VALUES {{rows}})
"""
REQUEUE = """
    UPDATE omniq_tasks SET
        state = 'queued', attempt = 0, lost = 0, available_at = ?, expires_at = NULL,
        started_at = NULL, finished_at = NULL, error = NULL
    WHERE seq IN (VALUES {rows})
"""
SET_STATE = "UPDATE omniq_tasks SET state = ? WHERE seq IN (VALUES {rows})"

STANDINGS = """
    WITH wanted (id) AS (VALUES {rows})
    SELECT c.id, t.seq, t.state, t.token, t.started_at, t.expires_at, c.depends_on
    FROM wanted JOIN omniq_calls c ON c.id = wanted.id JOIN omniq_tasks t ON t.seq = c.seq {lock}
"""

ANY_DEPENDENCY = "SELECT 1 FROM omniq_dependencies LIMIT 1"
INSERT_DEPENDENCIES = "INSERT INTO omniq_dependencies (seq, needed, met) VALUES {rows}"
MEET = "UPDATE omniq_dependencies SET met = 1 WHERE needed IN (VALUES {rows})"
FREED = """
    SELECT DISTINCT d.seq FROM omniq_dependencies d
    WHERE d.needed IN (VALUES {rows}) AND NOT EXISTS
        (SELECT 1 FROM omniq_dependencies other WHERE other.seq = d.seq AND other.met = 0)
"""
LOCK_WAITING = """
    SELECT t.seq FROM omniq_tasks t
    WHERE t.seq IN (SELECT d.seq FROM omniq_dependencies d WHERE d.needed IN (VALUES {rows})) {lock}
"""
WAITING = """
    SELECT d.seq, c.id, d.needed
    FROM omniq_dependencies d JOIN omniq_calls c ON c.seq = d.seq
    WHERE d.needed IN (VALUES {rows})
"""
DELETE_DEPENDENCIES = "DELETE FROM omniq_dependencies WHERE seq IN (VALUES {rows})"


class Standing(NamedTuple):
    """What a transition needs to know of a task: the columns of `STANDINGS`."""

    id: str
    seq: int
    state: State
    token: int
    started_at: float | None
    expires_at: float | None
    depends_on: tuple[str, ...]


class Ending(NamedTuple):
    """A task that is over now."""

    id: str
    seq: int
    state: State
    started_at: float | None
    finished_at: float
    error: str | None


# -------------------------------------------------------------------- adding


async def add(tx: Transaction, tasks: Sequence[Task], revive: bool) -> list[bool]:
    """See `omniq_nb.machine.Add`."""
    added: list[bool] = []
    for part in _parts(tasks, revive):
        added += await _add(tx, part, revive)
    if any(added):
        tx.notify()
    return added


def _parts(tasks: Sequence[Task], revive: bool) -> Iterator[Sequence[Task]]:
    """Cut a batch where a task must see what became of the ones before it."""
    if revive and any(task.depends_on for task in tasks):
        yield from ([task] for task in tasks)
        return
    if len({task.id for task in tasks}) == len(tasks):
        yield tasks
        return
    start, seen = 0, set[str]()
    for end, task in enumerate(tasks):
        if task.id in seen:
            yield tasks[start:end]
            start, seen = end, set()
        seen.add(task.id)
    yield tasks[start:]


async def _add(tx: Transaction, tasks: Sequence[Task], revive: bool) -> list[bool]:
    tokens = await _make_way(tx, tasks) if revive else {}
    numbers = await tx.numbers(len(tasks))
    numbered = list(zip(numbers, tasks, strict=True))
    count = await tx.execute_each(INSERT_CALLS, [call_row(seq, task) for seq, task in numbered])
    if count == len(tasks):
        added = [True] * count
    else:
        inserted = {seq for (seq,) in await tx.fetch(INSERTED, numbers[0])}
        added = [seq in inserted for seq in numbers]
        numbered = [pair for pair, new in zip(numbered, added, strict=True) if new]
    rows = [new_standing_row(seq, task, tokens.get(task.id, 0)) for seq, task in numbered]
    await tx.execute_each(INSERT_TASKS, rows)
    await _admit(tx, [(seq, t.id, t.depends_on) for seq, t in numbered if t.depends_on])
    return added


async def _make_way(tx: Transaction, tasks: Sequence[Task]) -> dict[str, int]:
    """Delete the tasks that new ones replace. Their tokens go on from where they are."""
    replaced = [
        standing
        for standing in await _standings(tx, [task.id for task in tasks])
        if standing.state in REQUEUEABLE
    ]
    rows = [(standing.seq,) for standing in replaced]
    await tx.execute_each(DELETE_CALLS, rows)
    await tx.execute_each(DELETE_TASKS, rows)
    return {standing.id: standing.token for standing in replaced}


# -------------------------------------------------------------------- claiming


async def levels(tx: Transaction, queue: str) -> list[Row]:
    """Give the priorities in use in a queue, highest first, and the earliest time of each."""
    return await tx.fetch(LEVELS, queue, queue, queue)


async def claim(
    tx: Transaction, queues: Sequence[str], limit: int, lease: float, worker: str
) -> list[Task]:
    """See `omniq_nb.machine.ClaimDue`."""
    now = await tx.now()
    picked: list[Task] = []
    for queue in queues:
        for priority, earliest in await levels(tx, queue) if len(picked) < limit else ():
            if earliest <= now and len(picked) < limit:
                room = limit - len(picked)
                rows = await tx.fetch(PICK, queue, priority, now, room)
                picked += map(task_of, rows)
    if picked:
        await _lease(tx, picked, now, now + lease, worker)
    return picked


async def _lease(
    tx: Transaction, picked: list[Task], now: float, until: float, worker: str
) -> None:
    """Lease due tasks, or end those whose time or luck is over. Changes the tasks too."""
    claimed, lost, endings = list[Row](), list[Row](), list[Ending]()
    for task in picked:
        if task.state is State.RUNNING:
            task.lost += 1
            lost.append((task.seq,))
        if task.lost >= MAX_LOST and task.state is State.RUNNING:
            task.state, task.error = State.FAILED, LOST_ERROR
        elif task.expires_at is not None and task.expires_at <= now:
            task.state, task.error = State.EXPIRED, EXPIRED_ERROR
        else:
            task.state = State.RUNNING
            task.token += 1
            task.attempt += 1
            task.worker, task.started_at, task.finished_at = worker, now, None
            task.available_at = until
            claimed.append((task.seq,))
            continue
        task.finished_at = now
        endings.append(Ending(task.id, task.seq, task.state, task.started_at, now, task.error))
    await tx.execute_each(COUNT_LOSS, lost)
    await tx.execute_each(CLAIM, claimed, worker, now, until)
    await _end(tx, endings)


# -------------------------------------------------------------------- by claim


async def held(tx: Transaction, claims: Sequence[Claim]) -> dict[Claim, int]:
    """Of these claims, those that are live; with the number of their task."""
    rows = await tx.fetch_each(HELD, claims)
    return {Claim(task_id, token): seq for task_id, token, seq in rows}


async def extend(tx: Transaction, claims: Sequence[Claim], lease: float) -> list[bool]:
    """See `omniq_nb.machine.Extend`."""
    live = await held(tx, claims)
    until = await tx.now() + lease
    await tx.execute_each(EXTEND, [(seq,) for seq in live.values()], until)
    if live and lease <= 0:
        tx.notify()
    return [claim in live for claim in claims]


async def settle(tx: Transaction, outcomes: Sequence[Settle]) -> list[bool]:
    """See `omniq_nb.machine.SettleAll`."""
    live = await held(tx, [Claim(outcome.id, outcome.token) for outcome in outcomes])
    now = await tx.now()
    settled, released, retried, endings = list[bool](), list[Row](), list[Row](), list[Ending]()
    for outcome in outcomes:
        seq = live.pop(Claim(outcome.id, outcome.token), None)
        settled.append(seq is not None)
        if seq is None:
            continue
        started_at, finished_at, error = outcome.started_at, outcome.finished_at, outcome.error
        if outcome.to is not State.QUEUED:
            over_at = now if finished_at is None else finished_at
            endings.append(Ending(outcome.id, seq, outcome.to, started_at, over_at, error))
        elif outcome.released:
            released.append((seq,))
        else:
            retried.append((seq, outcome.available_at, started_at, finished_at, error))
    await tx.execute_each(RELEASE, released, now)
    await tx.execute_each(RETRY, retried)
    await _end(tx, endings)
    if released or retried:
        tx.notify()
    return settled


# -------------------------------------------------------------------- by hand


async def move(tx: Transaction, ids: Sequence[str], to: State) -> list[State | None]:
    """See `omniq_nb.machine.Move`."""
    standings = await _standings(tx, ids)
    if any(s.state is State.BLOCKED or s.depends_on for s in standings):
        # Each transition may change what the next one finds.
        for task_id in ids:
            await _move(tx, await _standings(tx, [task_id]), to)
    else:
        await _move(tx, standings, to)
    states = {standing.id: standing.state for standing in await _standings(tx, ids)}
    return [states.get(task_id) for task_id in ids]


async def _move(tx: Transaction, standings: Sequence[Standing], to: State) -> None:
    """Move the tasks for which that is allowed. None of them waits for another one."""
    now = await tx.now()
    if to is State.QUEUED:
        requeued = [s for s in standings if s.state in REQUEUEABLE]
        await tx.execute_each(REQUEUE, [(s.seq,) for s in requeued], now)
        await _admit(tx, [(s.seq, s.id, s.depends_on) for s in requeued if s.depends_on])
        tx.notify()
        return
    if to is State.CANCELLED:
        moved = [s for s in standings if s.state in UNFINISHED]
        await tx.execute_each(FENCE_OFF, [(s.seq,) for s in moved])
        error = CANCELLED_ERROR
    else:
        waiting = (s for s in standings if s.state in (State.QUEUED, State.BLOCKED))
        moved = [s for s in waiting if s.expires_at is not None and s.expires_at <= now]
        error = EXPIRED_ERROR
    await _end(tx, [Ending(s.id, s.seq, to, s.started_at, now, error) for s in moved])


async def _standings(tx: Transaction, ids: Sequence[str]) -> list[Standing]:
    rows = await tx.fetch_each(STANDINGS, [(task_id,) for task_id in dict.fromkeys(ids)])
    return [
        Standing(row[0], row[1], STATES[row[2]], row[3], row[4], row[5], words(row[6]))
        for row in rows
    ]


# -------------------------------------------------------------------- dependencies


async def _admit(tx: Transaction, dependents: Sequence[tuple[int, str, tuple[str, ...]]]) -> None:
    """Block, free or cancel new or requeued tasks because of what they depend on."""
    if not dependents:
        return
    wanted = dict.fromkeys(needed for _, _, depends_on in dependents for needed in depends_on)
    states = {standing.id: standing.state for standing in await _standings(tx, list(wanted))}
    if len(states) < len(wanted):
        # One that is added and ends before this is committed would not see who waits for it.
        await tx.hold_off_adding()
        states = {standing.id: standing.state for standing in await _standings(tx, list(wanted))}
    now = await tx.now()
    blocked, free, waits, endings = list[Row](), list[Row](), list[Row](), list[Ending]()
    for seq, task_id, depends_on in dependents:
        failed = [needed for needed in depends_on if states.get(needed) in REQUEUEABLE]
        met = {needed: states.get(needed) is State.SUCCEEDED for needed in depends_on}
        if failed:
            error = dependency_error(failed[0])
            endings.append(Ending(task_id, seq, State.CANCELLED, None, now, error))
        elif all(met.values()):
            free.append((seq,))
        else:
            blocked.append((seq,))
            waits += [(seq, needed, int(done)) for needed, done in met.items()]
    await tx.execute_each(SET_STATE, free, State.QUEUED.value)
    await tx.execute_each(SET_STATE, blocked, State.BLOCKED.value)
    await tx.execute_each(INSERT_DEPENDENCIES, waits)
    await _end(tx, endings)


async def _end(tx: Transaction, endings: Sequence[Ending]) -> None:
    """Make tasks final, and free or cancel the tasks that wait for them."""
    await tx.execute_each(END, [_end_row(ending) for ending in endings])
    await end_dependents(tx, endings)


async def end_dependents(tx: Transaction, endings: Sequence[Ending]) -> None:
    """Free or cancel the tasks that wait for tasks that are final now."""
    while endings and await tx.fetch(ANY_DEPENDENCY):
        # Of two that end at once, the second must see that the first one is met.
        await tx.fetch_each(LOCK_WAITING, [(ending.id,) for ending in endings])
        await tx.execute_each(DELETE_DEPENDENCIES, [(ending.seq,) for ending in endings])
        await _free(tx, [(e.id,) for e in endings if e.state is State.SUCCEEDED])
        endings = await _doomed(tx, [e for e in endings if e.state is not State.SUCCEEDED])
        await tx.execute_each(END, [_end_row(ending) for ending in endings])


def _end_row(ending: Ending) -> Row:
    return (
        ending.seq,
        ending.state.value,
        ending.started_at,
        ending.finished_at,
        ending.error,
    )


async def _free(tx: Transaction, succeeded: Sequence[Row]) -> None:
    """Queue the tasks that waited for these last."""
    await tx.execute_each(MEET, succeeded)
    freed = list(set(await tx.fetch_each(FREED, succeeded)))
    if freed:
        await tx.execute_each(SET_STATE, freed, State.QUEUED.value)
        await tx.execute_each(DELETE_DEPENDENCIES, freed)
        tx.notify()


async def _doomed(tx: Transaction, failed: Sequence[Ending]) -> list[Ending]:
    """Give the endings of the tasks that wait in vain for these."""
    times = {ending.id: ending.finished_at for ending in failed}
    waiting = await tx.fetch_each(WAITING, [(ending.id,) for ending in failed])
    endings = {
        seq: Ending(task_id, seq, State.CANCELLED, None, times[needed], dependency_error(needed))
        for seq, task_id, needed in waiting
    }
    return list(endings.values())
