"""What an older release has written is read, and its tables become those of this one."""

import sqlite3
from contextlib import closing

from omniq_nb.config.options import SqliteOptions
from omniq_nb.models.task import State
from omniq_nb.storage.sql import SqlitePlace
from omniq_nb.storage.sql.schema import MIGRATIONS, VERSION
from omniq_nb.storage.sql.sqlite import DIALECT
from omniq_nb.testing.samples import NOON, task
from omniq_nb.testing.suite import opened


def write_first_version(path):
    """Make the tables of version 1, with a task in them."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE omniq_schema (version BIGINT NOT NULL)")
        db.execute("INSERT INTO omniq_schema VALUES (1)")
        for statement in MIGRATIONS[0]:
            db.execute(statement.format_map(DIALECT._asdict()))
        db.execute(
            "INSERT INTO omniq_calls VALUES (1, 'old', 'demo.work', NULL, 0, '{}', '[]', '{}',"
            " ?, NULL, NULL, '{}', '[]', NULL, x'00ff')",
            (NOON,),
        )
        db.execute(
            "INSERT INTO omniq_tasks (seq, queue, state, priority, available_at, token)"
            " VALUES (1, 'default', 'queued', 0, ?, 0)",
            (NOON,),
        )


async def test_tables_of_the_first_version(tmp_path):
    path = tmp_path / "tasks.db"
    write_first_version(path)
    async with opened(SqlitePlace(str(path), SqliteOptions()).task_queue()) as queue:
        await queue.add([task("new", bundles=("a1",))])
        await queue.put_bundle("a1", b"content")
        new, old = sorted(await queue.claim(["default"], 10, 60.0, "w"), key=lambda t: t.id)
        assert (old.id, old.call, old.bundles) == ("old", b"\x00\xff", ())
        assert (new.id, new.bundles, await queue.get_bundle("a1")) == ("new", ("a1",), b"content")
        assert old.state is State.RUNNING
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version FROM omniq_schema").fetchall() == [(VERSION,)]
