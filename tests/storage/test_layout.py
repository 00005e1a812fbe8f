"""Other tools read the history in place, as docs/layout.md says: after each stage of its life."""

import json
import subprocess
import sys

import pytest

from omniq_nb import OmniQ
from omniq_nb.config.options import FileOptions
from omniq_nb.storage.file import FilePlace

DUCKDB = """
import duckdb
def read(kind, key, order):
    rows = duckdb.sql(f'''
        select * from read_parquet('history/{kind}/date=*/*.parquet', union_by_name = true)
        qualify row_number() over (partition by {key} order by "{order}" desc) = 1
    ''').df()
    return rows.to_dict('records')
"""

PANDAS = """
from pathlib import Path
import pandas as pd
def read(kind, key, order):
    rows = pd.concat(map(pd.read_parquet, Path('history', kind).glob('date=*/*.parquet')))
    return rows.sort_values(order).drop_duplicates(key, keep='last').to_dict('records')
"""

POLARS = """
import polars as pl
def read(kind, key, order):
    rows = pl.scan_parquet(f'history/{kind}/date=*/*.parquet', missing_columns='insert')
    rows = rows.sort(order).unique(key, keep='last', maintain_order=True)
    return rows.collect().to_dicts()
"""

REPORT = """
import json, sys
def text(value):
    return value if isinstance(value, str) else None  # pandas may say NaN

results = [
    [r['task_id'], r['state'], r['attempt'], json.loads(text(r['value']) or 'null')]
    for r in read('results', 'task_id', 'token')
]
events = [[e['id'], e['type'], text(e['task_id'])] for e in read('events', 'id', 'at')]
ours = 'omniq_nb' in sys.modules
print(json.dumps({'results': sorted(results), 'events': sorted(events), 'ours': ours}))
"""


def report(tool, folder):
    done = subprocess.run(
        [sys.executable, "-c", tool + REPORT], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(oq):
    results = oq.sql("select task_id, state, attempt, value from results").astype(object)
    events = oq.sql("select id, type, task_id from events").astype(object)
    return {
        "results": sorted(results.where(results.notna(), None).values.tolist()),
        "events": sorted(events.where(events.notna(), None).values.tolist()),
        "ours": False,
    }


async def compact(folder):
    place = FilePlace(str(folder), FileOptions())
    for store in (place.result_storage(), place.event_storage()):
        await store.open()
        await store.compact()
        await store.close()


def reciprocal(number):
    return 1 / number


@pytest.mark.parametrize("tool", [DUCKDB, PANDAS, POLARS], ids=["duckdb", "pandas", "polars"])
async def test_other_tools_see_what_our_sql_sees(tool, tmp_path):
    history = tmp_path / "history"

    with OmniQ(str(history)) as oq:
        oq.workers.start(1)
        batch = oq.map(reciprocal, [1, 2, 4, 0], name="fresh")
        batch.results(timeout=60, errors="return")
        oq.workers.stop()
        assert report(tool, tmp_path) == expected(oq)

    await compact(history)
    with OmniQ(str(history)) as oq:
        assert report(tool, tmp_path) == expected(oq)

        # The failed task again: its first result is compacted already and must not show.
        oq.requeue(*oq.dead_letters())
        oq.workers.start(1)
        oq.batch("fresh").results(timeout=60, errors="return")
        oq.workers.stop()
        assert report(tool, tmp_path) == expected(oq)

    await compact(history)  # what it replaced is still there for queries under way
    assert len(list(history.glob("results/*/compacted-*"))) > 1
    with OmniQ(str(history)) as oq:
        assert report(tool, tmp_path) == expected(oq)
