"""The task queue. What its verbs do is in ``lua/``.

A worker of this process that waits is woken when tasks are about to be added, not only when they
were: its claim then takes the tasks along, and both are one command.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec

from omniq_nb.errors import StoreError, StoreUnavailable
from omniq_nb.machine import LOST_ERROR, MAX_LOST
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, Settle, State, Task, WorkerInfo
from omniq_nb.storage.base import BUNDLE_KEPT, Query, ResultStore, Scan, TaskQueue
from omniq_nb.storage.redis import scripts
from omniq_nb.storage.redis.database import RedisDatabase
from omniq_nb.storage.redis.results import RedisResultStore
from omniq_nb.storage.redis.rows import (
    PART,
    packed_tasks,
    parts,
    result_row,
    steps,
    task_of,
    text,
    truths,
)
from omniq_nb.storage.shared import SharedStore

POLL = 1.0
"""Seconds between two looks at the queue while wake-ups cannot be heard."""

STEP = 500
"""Tasks that one call looks at in scans and purges."""

GONE = "The worker that took these tasks along to the Redis server was ended before it answered."
"""Only where an event loop ends."""


class _Arrival(NamedTuple):
    """Tasks about to be added, which a claim may take along.

    Attributes
    ----------
    queues : set of str
        Theirs.
    request, parts : object, list of bytes
        For the script.
    added : asyncio.Future
        The script's answer.
    """

    queues: set[str]
    request: object
    parts: list[bytes]
    added: "asyncio.Future[bytes]"


class _Look(NamedTuple):
    """What the latest claim saw: it found less than it asked for.

    Attributes
    ----------
    queues : tuple of str
        Where it looked.
    news : int
        How often there had been news before.
    due_at : float
        When the next task is due, by the loop's clock.
    """

    queues: tuple[str, ...]
    news: int
    due_at: float


class RedisTaskQueue(SharedStore[RedisDatabase], TaskQueue):
    """Tasks on a Redis server; see `TaskQueue`."""

    def __init__(self, database: RedisDatabase) -> None:
        super().__init__(database)
        self._arrival: _Arrival | None = None
        self._look: _Look | None = None

    async def add(self, tasks: Sequence[Task], revive: bool = False) -> list[bool]:
        """Enqueue, in one call; see `TaskQueue`."""
        database = self._database
        if not tasks:
            return []
        places, parts = packed_tasks(tasks)
        queues = {queue for queue, _ in places}
        request = (places, revive, any(task.depends_on for task in tasks))
        anybody_waits = database.listener.wake(queues)
        if anybody_waits and self._arrival is None:
            added = asyncio.get_running_loop().create_future()
            self._arrival = arrival = _Arrival(queues, request, parts, added)
            try:
                await asyncio.sleep(0)  # who was woken claims now, if ever
            finally:
                taken = self._arrival is not arrival
                if not taken:
                    self._arrival = None
            if taken:
                return truths(await added)
        return truths(await database.run(scripts.ADD, request, parts))

    async def claim(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> list[Task]:
        """Lease; see `TaskQueue`."""
        request = (queues, limit, lease, worker, MAX_LOST, LOST_ERROR)
        arrival, news = self._arrival, self._database.listener.news
        if arrival is None or arrival.queues.isdisjoint(queues):
            pieces, due_in = await self._database.run(scripts.CLAIM, request)
        else:
            self._arrival = None
            pieces, due_in = await self._add_and_claim(arrival, request)
        self._look = None
        if due_in is not None:
            due_at = asyncio.get_running_loop().time() + float(due_in or math.inf)
            self._look = _Look(tuple(queues), news, due_at)
        return list(map(task_of, pieces[::3], pieces[1::3], pieces[2::3]))

    async def _add_and_claim(self, arrival: _Arrival, request: object) -> Any:
        """Do both, and tell who adds."""
        added, both = arrival.added, (arrival.request, request)
        try:
            digits, claimed = await self._database.run(scripts.ADD_CLAIM, both, arrival.parts)
        except BaseException as error:
            if not added.done():
                told = error if isinstance(error, StoreError) else StoreUnavailable(GONE)
                added.set_exception(told)
            raise
        if not added.done():
            added.set_result(digits)
        return claimed

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """Keep leases; see `TaskQueue`."""
        kept: list[bool] = []
        for some in steps(claims, PART):
            kept += truths(await self._database.run(scripts.EXTEND, (some, lease)))
        return kept

    async def held_by(self, worker: str) -> list[Claim]:
        """Look at all tasks, in steps; see `TaskQueue`."""
        claims = {
            Claim(id.decode(), token)
            async for flat in self._walk(scripts.HELD_BY, worker)
            for id, token in steps(flat, 2)
        }
        return list(claims)  # a walk may pass by a task twice

    def commits_with(self, results: ResultStore) -> bool:
        """Whether they share the server; see `TaskQueue`."""
        return isinstance(results, RedisResultStore) and results.is_in(self._shared)

    async def settle(
        self, outcomes: Sequence[Settle], results: Sequence[Result] = ()
    ) -> list[bool]:
        """Apply outcomes; see `TaskQueue`. Each is fenced for itself, so a call takes a part."""
        by_claim = {(result.task_id, result.token): result for result in results}
        settled: list[bool] = []
        for some in steps(outcomes, PART):
            pairs = ((n, by_claim.get((each.id, each.token))) for n, each in enumerate(some, 1))
            rows = ((n, *result_row(result)) for n, result in pairs if result is not None)
            packed = parts(((n, row), size) for n, row, size in rows)
            settled += truths(await self._database.run(scripts.SETTLE, some, packed))
        return settled

    async def transition(self, ids: Sequence[str], to: State) -> list[State | None]:
        """Move by hand; see `TaskQueue`."""
        states: list[State | None] = []
        for some in steps(ids, PART):
            found = await self._database.run(scripts.TRANSITION, (some, to.value))
            states += [State(state.decode()) if state else None for state in found]
        return states

    async def put_bundle(self, name: str, data: bytes) -> None:
        """Store, and note when; see `TaskQueue`. In this order: what is noted can be deleted."""
        database = self._database
        await database.command("ZADD", database.key("bundles"), time.time(), name)
        await database.command("SET", database.key(f"bundle:{name}"), data)

    async def get_bundle(self, name: str) -> bytes | None:
        """Read; see `TaskQueue`."""
        database = self._database
        found: bytes | None = await database.command("GET", database.key(f"bundle:{name}"))
        return found

    async def get(self, ids: Sequence[str]) -> list[Task | None]:
        """Read; see `TaskQueue`."""
        tasks: list[Task | None] = []
        for some in steps(ids, PART):
            pieces = steps(await self._database.run(scripts.GET, (some,)), 2)
            tasks += [task_of(*piece) if piece[0] else None for piece in pieces]
        return tasks

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Listen, and look when the next task is due; see `TaskQueue`."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout
        database = self._database
        listener = database.listener
        heard = listener.listen(queues)
        try:
            look, self._look = self._look, None
            if look is not None and look[:2] != (tuple(queues), listener.news):
                look = None
            while loop.time() < ends_at:
                if look is not None and listener.live:
                    due_at = look.due_at
                else:
                    found = await database.run(scripts.DUE_IN, (queues,))
                    due_at = loop.time() + float(found or math.inf)
                look = None
                if due_at <= loop.time():
                    return
                hears = listener.live
                look_at = min(ends_at, due_at, math.inf if hears else loop.time() + POLL)
                alarm = loop.call_at(look_at, heard.set)
                try:
                    await heard.wait()
                finally:
                    alarm.cancel()
                if hears and loop.time() < look_at:
                    return
                heard.clear()  # it is time, or it hears again, that is all: look once more
        finally:
            listener.forget(heard)

    async def counts(self) -> dict[tuple[str, State], int]:
        """Read the counters; see `TaskQueue`."""
        counts = {}
        database = self._database
        for field, number in steps(await database.command("HGETALL", database.key("counts")), 2):
            state, _, queue = field.decode().partition(":")
            counts[queue, State(state)] = int(number)
        return counts

    async def workers(self, beat: WorkerInfo | None = None) -> list[WorkerInfo]:
        """Record and list; see `TaskQueue`."""
        packed = None if beat is None else (beat.id, text(msgspec.msgpack.encode(beat)))
        found = await self._database.run(scripts.WORKERS, (packed or False, False))
        infos = [msgspec.msgpack.decode(info, type=WorkerInfo) for info in found]
        return sorted(infos, key=lambda info: info.id)

    async def scan(self, query: Query) -> Scan:
        """Read all, in steps; see `TaskQueue`."""
        from omniq_nb.storage.redis.scan import scan
        from omniq_nb.storage.tables import TASKS

        def tasks_of(pieces: list[bytes]) -> list[Task]:
            return [task_of(*piece) for piece in steps(pieces, 2)]

        return await scan(self._walk(scripts.SCAN_TASKS), tasks_of, TASKS, "id", query)

    async def _walk(self, script: scripts.Script, *words: object) -> AsyncIterator[Any]:
        """Run a script over all tasks, and give what it tells at each step."""
        cursor = b"0"
        while True:
            request = (cursor.decode(), STEP, *words)
            cursor, told = await self._database.run(script, request)
            yield told
            if cursor == b"0":
                return

    async def purge(self, before: float) -> int:
        """Forget, in steps; see `TaskQueue`."""
        await self._database.run(scripts.WORKERS, (False, before))
        purged: int = sum([number async for number in self._walk(scripts.PURGE_TASKS, before)])
        await self._purge_bundles()
        return purged

    async def _purge_bundles(self) -> None:
        database, horizon = self._database, time.time() - BUNDLE_KEPT
        noted = database.key("bundles")
        old = set(await database.command("ZRANGE", noted, "-inf", f"({horizon!r}", "BYSCORE"))
        if old:
            async for pieces in self._walk(scripts.SCAN_TASKS):
                for standing, head in steps(pieces, 2):
                    old.difference_update(name.encode() for name in task_of(standing, head).bundles)
        for name in old:
            await database.command("DEL", database.key(f"bundle:{name.decode()}"))
            await database.command("ZREM", noted, name)
