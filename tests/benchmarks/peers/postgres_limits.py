"""What PostgreSQL allows: claim 64 and complete 64 by asyncpg, and rows copied in."""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import asyncpg
from measure import report

url = sys.argv[2]
N = 64 * 600

CLAIM = """
    UPDATE limits SET state = 1 WHERE id IN
        (SELECT id FROM limits WHERE state = 0 ORDER BY id LIMIT 64 FOR UPDATE SKIP LOCKED)
    RETURNING id
"""


async def main() -> None:
    db = await asyncpg.connect(url)
    await db.execute("CREATE TABLE limits (id BIGINT PRIMARY KEY, state INT, body TEXT)")
    await db.execute("CREATE INDEX ON limits (id) WHERE state = 0")
    try:
        start = time.perf_counter()
        rows = ((i, 0, str(i)) for i in range(N))
        await db.copy_records_to_table("limits", records=rows)
        copied = N / (time.perf_counter() - start)
        start = time.perf_counter()
        while claimed := await db.fetch(CLAIM):
            ids = [row[0] for row in claimed]
            await db.execute("UPDATE limits SET state = 2 WHERE id = ANY($1::bigint[])", ids)
        report(copy=copied, claim_and_complete=N / (time.perf_counter() - start))
    finally:
        await db.execute("DROP TABLE limits")


asyncio.run(main())
