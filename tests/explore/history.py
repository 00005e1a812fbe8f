"""Stores with a small history in them: fakes made of Arrow tables and files, and real ones."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omniq_nb.config.options import FileOptions, SqliteOptions
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.result import Result
from omniq_nb.models.schedule import Schedule, ScheduleType
from omniq_nb.models.task import Settle, State, Task, WorkerInfo
from omniq_nb.storage import tables
from omniq_nb.storage.base import Query, Scan, Stores
from omniq_nb.storage.file import FilePlace
from omniq_nb.storage.memory import MemoryPlace
from omniq_nb.storage.sql import SqlitePlace

NOON = 1_750_000_000.0

ODD = 'it\'s "odd"; DROP TABLE tasks; --\n🦆\t%'


class Fake:
    """A store of rows, some of them in files. It remembers what it was asked for."""

    def __init__(self, schema: pa.Schema, rows: Sequence[Any] = (), files: Sequence[str] = ()):
        self.schema, self.rows, self.files = schema, rows, files
        self.asked: list[Query] = []
        self.listed: list[Any] = []

    async def scan(self, query: Query) -> Scan:
        self.asked.append(query)
        return Scan(tables.table(self.rows, tables.select(self.schema, query.columns)), self.files)

    async def workers(self, beat: WorkerInfo | None = None) -> list[Any]:
        return self.listed

    async def list(self) -> list[Any]:
        return self.listed


def fakes(
    tasks: Sequence[Task] = (),
    results: Sequence[Result] = (),
    events: Sequence[Event] = (),
    result_files: Sequence[str] = (),
    event_files: Sequence[str] = (),
) -> Any:
    """Four fake stores."""
    return Stores(
        Fake(tables.TASKS, tasks),  # type: ignore[arg-type]
        Fake(tables.RESULTS, results, result_files),  # type: ignore[arg-type]
        Fake(tables.EVENTS, events, event_files),  # type: ignore[arg-type]
        Fake(tables.SCHEDULES),  # type: ignore[arg-type]
    )


def result(id: str, value: str | None = None, arguments: str = "{}", **fields: Any) -> Result:
    """A result that counts."""
    return Result(
        **{
            "task_id": id,
            "token": 1,
            "name": "fit",
            "state": State.SUCCEEDED,
            "value": value,
            "arguments": arguments,
            "finished_at": NOON,
            **fields,
        }
    )


def valued(*values: str | None) -> Any:
    """Stores with results of these values."""
    return fakes(results=[result(f"t{i:04}", value) for i, value in enumerate(values)])


def parquet(path: Path, rows: Sequence[Any], schema: pa.Schema) -> str:
    """Write rows to a file."""
    pq.write_table(tables.table(rows, schema), path)
    return str(path)


PLACES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda folder: MemoryPlace(),
    "sqlite": lambda folder: SqlitePlace(str(folder / "omniq.db"), SqliteOptions()),
    "file": lambda folder: FilePlace(str(folder / "omniq [1] it's"), FileOptions(fsync=False)),
}


def drive(operation: Coroutine[Any, Any, Any]) -> Any:
    """Run an operation of immediate stores with no event loop."""
    with pytest.raises(StopIteration) as ended:
        operation.send(None)
    return ended.value.value


@asynccontextmanager
async def opened(place: Any):
    """The four open stores of a place."""
    stores = Stores(
        place.task_queue(),
        place.result_storage(),
        place.event_storage(),
        place.schedule_storage(),
    )
    each = [getattr(stores, name) for name in Stores.__struct_fields__]
    for store in each:
        await store.open()
    try:
        yield stores
    finally:
        for store in each:
            await store.close()


async def fill(stores: Stores) -> None:
    """A sweep of six tasks: four succeeded, one failed, one runs, and a cancelled one besides.

    The running one was given up by its first worker, which put its result all the same.
    """
    sweep = [
        Task(
            id=f"t{i}",
            name="fit",
            batch="sweep-1",
            position=i,
            arguments=msgspec.json.encode({"depth": i % 2, "lr": i / 4, "name": ODD}).decode(),
            tags=("a", ODD),
            metadata='{"note": "🦆"}',
            created_at=NOON + i,
            available_at=NOON + i,
        )
        for i in range(6)
    ]
    other = Task(id=ODD, name=ODD, queue=ODD, batch=ODD, created_at=NOON, available_at=NOON)
    queue = stores.task_queue
    await queue.add([*sweep, other])
    first = await queue.claim(["default"], 6, -60.0, "worker-1")  # leases that are over
    assert [task.id for task in first] == [f"t{i}" for i in range(6)]
    again = await queue.claim(["default"], 6, 600.0, "worker-2")
    assert [task.token for task in again] == [2] * 6
    outcomes, results = [], []
    for i, task in enumerate(again[:5]):
        state = State.FAILED if i == 4 else State.SUCCEEDED
        finished = {"started_at": NOON + 10 + i, "finished_at": NOON + 10.5 + i}
        error = "ValueError: no" if i == 4 else None
        outcomes.append(Settle(id=task.id, token=task.token, to=state, error=error, **finished))
        results.append(
            Result(
                **{n: getattr(task, n) for n in ("name", "queue", "batch", "position")},
                **{n: getattr(task, n) for n in ("arguments", "attempt", "worker", "created_at")},
                **finished,
                task_id=task.id,
                token=task.token,
                state=state,
                value=None if error else str(i * 1.5),
                value_type="builtins.ValueError" if error else "builtins.float",
                error=error,
                output=ODD,
            )
        )
    zombie = msgspec.structs.replace(
        results[0], task_id="t5", token=1, position=5, value='"zombie"', created_at=NOON + 5
    )
    await stores.result_storage.put([*results, zombie])
    assert all(await queue.settle(outcomes))
    await queue.transition([ODD], State.CANCELLED)
    cancelled = Result(
        task_id=ODD, token=0, name=ODD, queue=ODD, batch=ODD, state=State.CANCELLED,
        created_at=NOON, finished_at=NOON + 30,
    )  # fmt: skip
    await stores.result_storage.put([cancelled])
    await stores.event_storage.append(
        [
            Event(
                id=f"{r.task_id}:{r.token}:{r.state}",
                type=EventType(r.state),
                at=r.finished_at or NOON,
                task_id=r.task_id,
                name=r.name,
                queue=r.queue,
                batch=r.batch,
                attempt=r.attempt,
                worker=r.worker,
                started_at=r.started_at,
                message=r.error,
                data='{"a": [1, "🦆"]}',
            )
            for r in [*results, cancelled]
        ]
    )
    await stores.schedule_storage.put(
        Schedule(
            id=ODD, type=ScheduleType.CRON, cron="0 3 * * *", created_at=NOON,
            template=Task(id="x", name="fit"), next_fire_at=NOON + 60,
        ),
        0,
    )  # fmt: skip
    beat = WorkerInfo(id="worker-2", queues=("default",), started_at=NOON, heartbeat_at=NOON + 5)
    await queue.workers(msgspec.structs.replace(beat, state="stopped"))
