"""A million events of PostgreSQL as a DataFrame, and a fifth as many results: through omniq_nb, and
by bare ADBC, which leaves JSON as text, or with that text decoded in Python.

``python -m tests.benchmarks.explore URL [ROWS]``.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pandas as pd
from adbc_driver_postgresql import dbapi

from omniq_nb import OmniQ
from omniq_nb.models.result import Result
from omniq_nb.models.task import State
from omniq_nb.portal import LoopThread
from tests.benchmarks.history import fill
from tests.benchmarks.measure import report, seconds
from tests.benchmarks.ours import place

RESULTS = (
    "task_id, name, queue, batch, state, attempt, worker, created_at, started_at, finished_at, "
    "position, arguments, value, value_type, error, traceback, output, expires_at, token"
)
"""The columns of results but for the payload, which no view shows."""


def main(url: str, rows: int) -> None:
    """Fill, read three times on each side, report medians."""
    mine = place(url, Path())
    schema = mine.rpartition("=")[2]

    def bare(columns: str, table: str) -> pd.DataFrame:
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {schema}.omniq_{table}")
            frame: pd.DataFrame = cursor.fetch_df()
            return frame

    def decoded(columns: str, table: str) -> pd.DataFrame:
        frame = bare(columns, table)
        for name in ("arguments", "value"):
            frame[name] = [msgspec.json.decode(text) for text in frame[name]]
        return frame

    def medians(*ways: Callable[[], pd.DataFrame]) -> list[float]:
        assert len({len(way()) for way in ways}) == 1
        taken = [[seconds(way) for way in ways] for _ in range(3)]
        return [statistics.median(each) for each in zip(*taken, strict=True)]

    with OmniQ(mine) as oq:
        LoopThread.shared().call(fill(oq, rows))
        ours, adbc = medians(lambda: oq.events.df(), lambda: bare("*", "events"))
        LoopThread.shared().call(fill_results(oq, rows // 5))
        results, adbc_results, adbc_decoded = medians(
            lambda: oq.results.df(),
            lambda: bare(RESULTS, "results"),
            lambda: decoded(RESULTS, "results"),
        )
        few = "task_id, state, arguments, value, started_at, finished_at"
        query = "select task_id, state, lr, depth, value.score as score, duration from results"
        typed, adbc_typed = medians(lambda: oq.sql(query), lambda: bare(few, "results"))
    report(
        ours=ours,
        adbc=adbc,
        results=results,
        adbc_results=adbc_results,
        adbc_decoded=adbc_decoded,
        typed=typed,
        adbc_typed=adbc_typed,
    )


async def fill_results(oq: OmniQ, rows: int) -> None:
    """Outcomes of a large sweep."""
    store = oq._async._engine.stores.result_storage
    for start in range(0, rows, 20_000):
        await store.put(
            [
                Result(
                    task_id=f"batch-{i:09}",
                    token=1,
                    name="fit",
                    batch="sweep",
                    position=i,
                    arguments=f'{{"lr": {i % 97 / 100}, "depth": {i % 11}}}',
                    attempt=1,
                    worker="host-1-abc",
                    state=State.SUCCEEDED,
                    created_at=1.79e9 + i * 0.01,
                    started_at=1.79e9 + i * 0.01,
                    finished_at=1.79e9 + i * 0.01 + 1,
                    payload=bytes(60),
                    value=f'{{"score": {i % 1009 / 1009}, "n": {i}}}',
                    value_type="builtins.dict",
                    output="fitting\n",
                )
                for i in range(start, min(rows, start + 20_000))
            ]
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
