"""What the views hold: every column with its type, where it comes from and what it means.

This is the only list. The catalogue makes the SQL of the views from it, and
``python -m omniq_nb.explore`` prints the page docs/tables.md.

Not here: the columns that a store gives (`omniq_nb.storage.tables`), and the types of arguments
and values, which depend on the rows (`omniq_nb.explore.structure`).
"""

from typing import NamedTuple

JSON_OR_RAW = "(CASE WHEN json_valid({0}) THEN {0} ELSE to_json({0})::VARCHAR END)::JSON"
"""Text as JSON. What DuckDB does not take for JSON (half an emoji) is a JSON string."""

SECONDS = "(epoch_us({1}) - epoch_us({0})) / 1e6"
"""The span between two times. Subtracting them instead goes through ICU and is 20 times slower."""

EVENT_STATES = {
    "queued": ("enqueued", "retried", "released", "requeued"),
    "running": ("started", "progress", "output"),
    "succeeded": ("succeeded",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
    "expired": ("expired",),
}
"""The state of a task after each type of event."""


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("'", "''") + "'"


class Column(NamedTuple):
    """One column of a view.

    Attributes
    ----------
    name, type : str
        Its name, and its type in DuckDB; ``"TYPED"`` follows the stored JSON.
    doc : str
        What it means.
    needs : tuple of str
        The columns of the store that it is made of; none: it is always NULL.
    sql : str
        How; the needed column itself unless given.
    """

    name: str
    type: str
    doc: str
    needs: tuple[str, ...] = ()
    sql: str = ""

    @property
    def null(self) -> str:
        """No value of its type in SQL."""
        return f"NULL::{self.type.replace('TYPED', 'JSON')}"

    @property
    def expression(self) -> str:
        """Its SQL over the store's columns."""
        if not self.needs:
            return self.null
        return self.sql or identifier(self.needs[0])


class View(NamedTuple):
    """One view.

    Attributes
    ----------
    name, doc : str
        What it is called and what its rows are.
    time : str
        The column by which its rows are ordered and restricted in time.
    columns : tuple of Column
        The key columns, then its own.
    """

    name: str
    doc: str
    time: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All documented columns."""
        return tuple(column.name for column in self.columns)

    @property
    def typed(self) -> tuple[str, ...]:
        """The columns whose types depend on the rows."""
        return tuple(column.name for column in self.columns if column.type == "TYPED")

    @property
    def raw(self) -> "View":
        """The same with JSON as text."""
        columns = (
            column._replace(type="VARCHAR") if column.type == "TYPED" else column
            for column in self.columns
        )
        return self._replace(columns=tuple(columns))

    @property
    def time_source(self) -> str:
        """The store's name for `time`."""
        return next(column.needs[0] for column in self.columns if column.name == self.time)


KEYS = (
    Column("task_id", "VARCHAR", "The task's id."),
    Column("name", "VARCHAR", "What the task is called: its function's name unless given."),
    Column("queue", "VARCHAR", "The queue it is in."),
    Column("batch", "VARCHAR", "The batch it is part of."),
    Column("state", "VARCHAR", "Where it stands."),
    Column("attempt", "BIGINT", "Which attempt, from 1; 0 before the first."),
    Column("worker", "VARCHAR", "The id of the worker that holds it or held it last."),
    Column("created_at", "TIMESTAMPTZ", "When it was submitted."),
    Column("started_at", "TIMESTAMPTZ", "When the last attempt started."),
    Column("finished_at", "TIMESTAMPTZ", "When the last attempt, or else the task, ended."),
    Column("duration", "DOUBLE", "Seconds from `started_at` to `finished_at`."),
)
"""The columns with which every view starts; NULL where they mean nothing."""


def _keys(**changes: Column | tuple[str, ...]) -> tuple[Column, ...]:
    """Give the key columns: of a store column of the same name, or as told; ``()`` for NULL."""
    columns = []
    for key in KEYS:
        change = changes.get(key.name, (key.name,))
        if isinstance(change, Column):
            columns.append(change)
        elif key.name == "duration" and change:
            needs = ("started_at", "finished_at")
            columns.append(key._replace(needs=needs, sql=SECONDS.format(*needs)))
        else:
            columns.append(key._replace(needs=change))
    return tuple(columns)


def _own(name: str, type: str, doc: str, source: str | None = None) -> Column:
    source = name if source is None else source
    sql = JSON_OR_RAW.format(f'"{source}"') if type == "JSON" else ""
    return Column(name, type, doc, (source,), sql)


_ARGUMENTS = _own(
    "arguments", "TYPED", "The arguments by name. Each is a column of its own, too: see below."
)
_POSITION = _own("position", "BIGINT", "Its place in its batch, from 0.")
_TOKEN = _own("token", "BIGINT", "How often the task was claimed so far, ever.")

TASKS = View(
    "tasks",
    "One row for each task that its queue still knows.",
    "created_at",
    (
        *_keys(task_id=("id",)),
        _POSITION,
        _own("priority", "BIGINT", "Higher runs first, within a queue."),
        _ARGUMENTS,
        _own("tags", "VARCHAR[]", "Words that the user attached."),
        _own("metadata", "JSON", "An object that the user attached."),
        _own("available_at", "TIMESTAMPTZ", "When it may start; while it runs, its lease's end."),
        _own("expires_at", "TIMESTAMPTZ", "If no attempt started by then, it expires."),
        _own("timeout", "DOUBLE", "Seconds that one attempt may take."),
        _own("depends_on", "VARCHAR[]", "Ids of tasks that must succeed first."),
        _own("schedule", "VARCHAR", "The schedule that enqueued it."),
        _TOKEN,
        _own("lost", "BIGINT", "Attempts that ended because their worker vanished."),
        _own("error", "VARCHAR", "The last attempt's `Type: message`."),
    ),
)

RESULTS = View(
    "results",
    "One row for each stored outcome that counts: an attempt that its queue did not accept, "
    "or has not accepted yet, does not show.",
    "finished_at",
    (
        *_keys(),
        _POSITION,
        _ARGUMENTS,
        _own("value", "TYPED", "What the task returned, as far as it can be said in JSON."),
        _own("value_type", "VARCHAR", "`module.Name` of the value, or of the exception."),
        _own("error", "VARCHAR", "`Type: message` of a failed attempt."),
        _own("traceback", "VARCHAR", "Its traceback."),
        _own("output", "VARCHAR", "What the attempt printed and logged."),
        _own("expires_at", "TIMESTAMPTZ", "When it may be purged."),
        _TOKEN,
    ),
)

EVENTS = View(
    "events",
    "One row for each thing that happened, oldest first.",
    "created_at",
    (
        *_keys(
            state=Column(
                "state",
                "VARCHAR",
                "Where the event left the task.",
                ("type",),
                'CASE "type" '
                + " ".join(
                    f"WHEN '{type}' THEN '{state}'"
                    for state, types in EVENT_STATES.items()
                    for type in types
                )
                + " END",
            ),
            created_at=Column("created_at", "TIMESTAMPTZ", "When it happened.", ("at",)),
            started_at=Column(
                "started_at",
                "TIMESTAMPTZ",
                "On an event that ends an attempt: when that started.",
                ("started_at",),
            ),
            finished_at=Column(
                "finished_at",
                "TIMESTAMPTZ",
                "On an event that ends an attempt: when that ended.",
                ("started_at", "at"),
                'CASE WHEN "started_at" IS NOT NULL THEN "at" END',
            ),
            duration=Column(
                "duration",
                "DOUBLE",
                "On an event that ends an attempt: its seconds.",
                ("started_at", "at"),
                SECONDS.format("started_at", '"at"'),
            ),
        ),
        _own("type", "VARCHAR", "What happened: `enqueued`, `started`, `succeeded`..."),
        _own("message", "VARCHAR", "One line for people."),
        _own("data", "JSON", "More, as an object."),
        _own("id", "VARCHAR", "The event's own id."),
    ),
)

SCHEDULES = View(
    "schedules",
    "One row for each schedule. The key columns tell of the tasks that it enqueues.",
    "created_at",
    (
        *_keys(
            task_id=(),
            batch=(),
            state=Column("state", "VARCHAR", "`active`, `paused` or `done`.", ("state",)),
            attempt=(),
            worker=(),
            created_at=Column("created_at", "TIMESTAMPTZ", "When it was made.", ("created_at",)),
            started_at=(),
            finished_at=(),
            duration=(),
        ),
        _own("id", "VARCHAR", "The schedule's id."),
        _own("type", "VARCHAR", "`cron`, `interval` or `once`."),
        _own("cron", "VARCHAR", "The cron expression."),
        _own("every", "DOUBLE", "Seconds from one fire time to the next."),
        _own("timezone", "VARCHAR", "The zone in which `cron` is read."),
        _own("next_fire_at", "TIMESTAMPTZ", "When it fires next."),
        _own("last_fire_at", "TIMESTAMPTZ", "When it fired last."),
        _own("version", "BIGINT", "How often it was changed."),
    ),
)

WORKERS = View(
    "workers",
    "One row for each worker, as its last heartbeat described it.",
    "started_at",
    (
        *_keys(
            task_id=(),
            name=(),
            queue=(),
            batch=(),
            state=Column(
                "state", "VARCHAR", "`running`, `draining`, `stopped`, `dead`.", ("state",)
            ),
            attempt=(),
            worker=Column("worker", "VARCHAR", "The worker's id.", ("id",)),
            created_at=(),
            started_at=Column("started_at", "TIMESTAMPTZ", "When it started.", ("started_at",)),
            finished_at=Column(
                "finished_at",
                "TIMESTAMPTZ",
                "When it stopped.",
                ("state", "heartbeat_at"),
                'CASE WHEN "state" = \'stopped\' THEN "heartbeat_at" END',
            ),
            duration=Column(
                "duration",
                "DOUBLE",
                "Seconds that it lived, once it stopped.",
                ("state", "started_at", "heartbeat_at"),
                "CASE WHEN \"state\" = 'stopped' THEN "
                + SECONDS.format("started_at", "heartbeat_at")
                + " END",
            ),
        ),
        _own("kind", "VARCHAR", "`thread`, `async`, `process`..."),
        _own("queues", "VARCHAR[]", "The queues it serves, in order."),
        _own("concurrency", "BIGINT", "Tasks that it runs at the same time."),
        _own("host", "VARCHAR", "The machine it runs on."),
        _own("pid", "BIGINT", "Its process there."),
        _own("heartbeat_at", "TIMESTAMPTZ", "When it was last heard of."),
        _own("running", "BIGINT", "Tasks under way."),
        _own("succeeded", "BIGINT", "Attempts that succeeded since it started."),
        _own("failed", "BIGINT", "Attempts that failed since it started."),
        _own("log", "VARCHAR", "The file there that it writes to, if it has one."),
    ),
)

VIEWS = {view.name: view for view in (TASKS, RESULTS, EVENTS, SCHEDULES, WORKERS)}
"""The views that a query may name."""

BATCH = View(
    "batch",
    "One row for each task of a batch, with its result where there is one.",
    "created_at",
    (
        *_keys(),
        _POSITION,
        _ARGUMENTS,
        _own("value", "TYPED", "What the task returned."),
        _own("error", "VARCHAR", "`Type: message` of a failed attempt."),
    ),
)
"""What ``batch.df()`` is made of."""

TYPES = """\
## Arguments and values

`arguments` and `value` get their types from the rows that are there. Objects are a `STRUCT`
(`value.accuracy`), integers `BIGINT`, integers and fractions together `DOUBLE`, the rest
`VARCHAR`, `BOOLEAN` or a list of these. What does not fit one type is `JSON`: values of several
kinds, integers beyond 64 bits, names that differ only by case, objects with very many names or
very deep ones, and a column that holds nothing but NULL. `value ->> '$.accuracy'` reads that.

Each argument is a column of its own too, after the documented ones: `select lr, depth from
results`. An argument called like a documented column is only at `arguments.name`; an argument
that some rows lack is NULL there.

## Times

Times are `TIMESTAMPTZ` in UTC, spans are seconds. `date_trunc` is as fast on these times as on
a plain `TIMESTAMP`. For local time say `created_at at time zone 'Europe/Berlin'`.

## Where tasks come from, and what they ran in

The event `enqueued` tells in `data` from where a task was submitted: `notebook` (or script),
`cell`, `code` (a hash of the function's own code, the same after it was moved or formatted anew)
and `environment`.
The event `worker_started` tells the `environment` of the worker. Both are hashes; what one stands
for, an event of the type `environment` tells once: `python`, `platform`, `packages` with their
versions, and the git `commit`.

```sql
select results.task_id, code.data ->> 'code' as code, env.data ->> 'commit' as commit,
       env.data -> 'packages' ->> 'numpy' as numpy
from results
join events as code on code.task_id = results.task_id and code.type = 'enqueued'
join events as started on started.worker = results.worker and started.type = 'worker_started'
join events as env on env.type = 'environment' and env.message = started.data ->> 'environment'
```

## What a query may do

One statement that reads: `SELECT`, `WITH`, `FROM`, `VALUES`, `DESCRIBE`, `SUMMARIZE`, `SHOW`,
`PIVOT`, `UNPIVOT`, `EXPLAIN`. It sees these views and nothing else: no files, no network, no
settings, no variables of the notebook. Values belong in parameters, `?` or `$name`:
`oq.sql("select * from results where batch = ?", ["sweep-1"])`.
"""


def markdown() -> str:
    """Give the page docs/tables.md."""
    lines = [
        "# Tables",
        "",
        "<!-- Made by `python -m omniq_nb.explore > docs/tables.md`: change omniq_nb/explore. -->",
        "",
        "`oq.sql(...)` queries these views with DuckDB, whatever the stores are. All of them start",
        "with the same key columns, which are NULL where they mean nothing.",
        "",
        *_table(KEYS),
    ]
    for view in VIEWS.values():
        own = [
            column for column, key in zip(view.columns, KEYS, strict=False) if column.doc != key.doc
        ]
        lines += ["", f"## {view.name}", "", view.doc, ""]
        lines += _table((*own, *view.columns[len(KEYS) :]))
    return "\n".join([*lines, "", TYPES])


def _table(columns: tuple[Column, ...]) -> list[str]:
    rows = ["| column | type | |", "|---|---|---|"]
    for column in columns:
        type = "by its rows" if column.type == "TYPED" else f"`{column.type}`"
        rows.append(f"| `{column.name}` | {type} | {column.doc} |")
    return rows
