"""What the machine allows: raw sqlite3 in batches, and linked journal entries with fsync."""

import os
import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import report, seconds

folder = Path(sys.argv[1])
N = 64 * 1_000


def batches() -> float:
    """Claim 64 and complete 64 in one transaction, WAL and synchronous NORMAL."""
    db = sqlite3.connect(folder / "limit.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, state INT, body TEXT)")
    db.execute("CREATE INDEX due ON t (id) WHERE state = 0")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t (state, body) VALUES (0, ?)", ((f"{i}",) for i in range(N)))
    db.execute("COMMIT")

    def drain() -> None:
        claimed: list[tuple[int]] = []
        while True:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE t SET state = 2 WHERE id = ?", claimed)
            claimed = db.execute(
                "UPDATE t SET state = 1 WHERE id IN "
                "(SELECT id FROM t WHERE state = 0 ORDER BY id LIMIT 64) RETURNING id"
            ).fetchall()
            db.execute("COMMIT")
            if not claimed:
                return

    return N / seconds(drain)


def journal(count: int = 1_000, tasks: int = 32) -> float:
    """Entries of 32 tasks: temporary file, fsync, link, unlink."""
    log = folder / "log"
    log.mkdir()
    body = b"x" * 200 * tasks

    def write() -> None:
        for number in range(count):
            temporary = log / "tmp"
            with temporary.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, log / f"{number:010}")
            temporary.unlink()

    return count * tasks / seconds(write)


report(sqlite=batches(), journal=journal())
