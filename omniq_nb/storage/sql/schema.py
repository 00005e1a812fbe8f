"""The tables, and how those of an older release become those of this one.

::

    omniq_calls         what was asked for: written once, read by claims
    omniq_tasks         where each task stands: small rows, for they are written often
    omniq_dependencies  for blocked tasks only: what each waits for, and whether it has it (met)
    omniq_bundles       what several calls refer to, and when it was put last
    omniq_workers, omniq_results, omniq_events, omniq_schedules
    omniq_schema        one row: the version

Times are seconds since 1970 in UTC. Lists and mappings are JSON.
"""

from omniq_nb.errors import StoreVersionError
from omniq_nb.storage.sql.database import Dialect, Transaction

LIVE = "state IN ('queued', 'running')"
ENDED = "state IN ('succeeded', 'failed', 'cancelled', 'expired')"

RUNNING = "coalesce({0}, '') = 'running'"
"""Of the state of a row that is found by its number. A bare comparison would let the index of
live tasks serve too, and PostgreSQL, as long as that is small, takes it for as good as the key:
with such a plan each outcome walks over all tasks that wait by now."""

_FIRST = (
    """CREATE TABLE omniq_calls (
        seq {serial} PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        batch TEXT,
        position BIGINT NOT NULL,
        arguments TEXT NOT NULL,
        tags TEXT NOT NULL,
        metadata TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        timeout DOUBLE PRECISION,
        result_ttl DOUBLE PRECISION,
        retry TEXT NOT NULL,
        depends_on TEXT NOT NULL,
        schedule TEXT,
        call {bytes} NOT NULL
    )""",
    """CREATE TABLE omniq_tasks (
        seq {serial} PRIMARY KEY,
        queue TEXT NOT NULL,
        state TEXT NOT NULL,
        priority BIGINT NOT NULL,
        available_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION,
        attempt BIGINT NOT NULL DEFAULT 0,
        token BIGINT NOT NULL,
        lost BIGINT NOT NULL DEFAULT 0,
        worker TEXT,
        started_at DOUBLE PRECISION,
        finished_at DOUBLE PRECISION,
        error TEXT
    )""",
    # In the order of claims. The state is there for the counts, which then need no table row.
    f"""CREATE INDEX omniq_tasks_due
        ON omniq_tasks (queue, priority DESC, available_at, seq, state) WHERE {LIVE}""",
    "CREATE INDEX omniq_tasks_blocked ON omniq_tasks (queue) WHERE state = 'blocked'",
    f"CREATE INDEX omniq_tasks_ended ON omniq_tasks (queue, state, finished_at) WHERE {ENDED}",
    """CREATE TABLE omniq_dependencies (
        seq BIGINT NOT NULL,
        needed TEXT NOT NULL,
        met BIGINT NOT NULL
    )""",
    "CREATE INDEX omniq_dependencies_needed ON omniq_dependencies (needed)",
    "CREATE INDEX omniq_dependencies_seq ON omniq_dependencies (seq, met)",
    """CREATE TABLE omniq_workers (
        id TEXT PRIMARY KEY,
        heartbeat_at DOUBLE PRECISION NOT NULL,
        info TEXT NOT NULL
    )""",
    """CREATE TABLE omniq_results (
        task_id TEXT PRIMARY KEY,
        token BIGINT NOT NULL,
        name TEXT NOT NULL,
        queue TEXT NOT NULL,
        batch TEXT,
        position BIGINT NOT NULL,
        arguments TEXT NOT NULL,
        state TEXT NOT NULL,
        attempt BIGINT NOT NULL,
        worker TEXT,
        created_at DOUBLE PRECISION NOT NULL,
        started_at DOUBLE PRECISION,
        finished_at DOUBLE PRECISION,
        value TEXT,
        value_type TEXT,
        error TEXT,
        traceback TEXT,
        output TEXT,
        expires_at DOUBLE PRECISION,
        payload {bytes} NOT NULL
    )""",
    "CREATE INDEX omniq_results_finished ON omniq_results (finished_at)",
    """CREATE INDEX omniq_results_expires ON omniq_results (expires_at)
        WHERE expires_at IS NOT NULL""",
    # An event that is written again has the time that it had: one index does for both, and in
    # this order new rows go to its end. Whoever scans drops an id that came with another time.
    """CREATE TABLE omniq_events (
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL,
        task_id TEXT,
        name TEXT,
        queue TEXT,
        batch TEXT,
        attempt BIGINT NOT NULL,
        worker TEXT,
        started_at DOUBLE PRECISION,
        message TEXT,
        data TEXT,
        PRIMARY KEY (at, id)
    ) {clustered}""",
    """CREATE TABLE omniq_schedules (
        id TEXT PRIMARY KEY,
        version BIGINT NOT NULL,
        next_fire_at DOUBLE PRECISION,
        schedule {bytes} NOT NULL
    )""",
    """CREATE INDEX omniq_schedules_next ON omniq_schedules (next_fire_at)
        WHERE next_fire_at IS NOT NULL""",
)

_BUNDLES = (
    """ALTER TABLE omniq_calls ADD COLUMN
        bundles TEXT NOT NULL DEFAULT '[]'
    """,
    # Few calls have any: which bundles are needed is told without a look at the others.
    "CREATE INDEX omniq_calls_bundles ON omniq_calls (bundles) WHERE bundles <> '[]'",
    """CREATE TABLE omniq_bundles (
        name TEXT PRIMARY KEY,
        put_at DOUBLE PRECISION NOT NULL,
        content {bytes} NOT NULL
    )""",
)

MIGRATIONS = (_FIRST, _BUNDLES)
"""The statements that lead from each version to the next one. Only ever appended to."""

VERSION = len(MIGRATIONS)


def is_newest(version: int, where: str) -> bool:
    """Whether tables of that version are those of this omniq_nb. Otherwise they are older.

    Raises
    ------
    StoreVersionError
        A newer omniq_nb wrote them.
    """
    if version > VERSION:
        raise StoreVersionError(
            f"{where} has tables of version {version}, and this omniq_nb knows versions up to "
            f"{VERSION}: a newer omniq_nb wrote them. Upgrade this one (pip install -U omniq_nb) "
            "or choose another database."
        )
    return version == VERSION


async def upgrade(transaction: Transaction, dialect: Dialect, where: str) -> None:
    """Create or upgrade the tables, if that is needed. Nobody else may write meanwhile.

    Raises
    ------
    StoreVersionError
        A newer omniq_nb wrote them.
    """
    await transaction.execute("CREATE TABLE IF NOT EXISTS omniq_schema (version BIGINT NOT NULL)")
    found = await transaction.fetch("SELECT version FROM omniq_schema")
    version = found[0][0] if found else 0
    if is_newest(version, where):
        return
    for migration in MIGRATIONS[version:]:
        for statement in migration:
            await transaction.execute(statement.format_map(dialect._asdict()))
    await transaction.execute("DELETE FROM omniq_schema")
    await transaction.execute("INSERT INTO omniq_schema (version) VALUES (?)", VERSION)
