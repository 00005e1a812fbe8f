"""A million events of PostgreSQL as a DataFrame, and a fifth as many results with their arguments
and values as columns: through omniq_nb, and by bare ADBC, which leaves these as text.

``python -m tests.benchmarks.explore URL [ROWS]``.
"""

import sys
from pathlib import Path

import pandas as pd
from adbc_driver_postgresql import dbapi

from omniq_nb import OmniQ
from omniq_nb.models.result import Result
from omniq_nb.models.task import State
from omniq_nb.portal import LoopThread
from tests.benchmarks.history import fill
from tests.benchmarks.measure import report, seconds
from tests.benchmarks.ours import place


def main(url: str, rows: int) -> None:
    """Fill, read three times on each side, report medians."""
    mine = place(url, Path())
    schema = mine.rpartition("=")[2]

    def bare(columns: str, table: str) -> pd.DataFrame:
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {schema}.omniq_{table}")
            frame: pd.DataFrame = cursor.fetch_df()
            return frame

    def compared(query: str, columns: str, table: str, number: int) -> tuple[float, float]:
        assert len(bare(columns, table)) == len(oq.sql(query)) == number
        ours, limit = [], []
        for _ in range(3):
            ours.append(seconds(lambda: oq.sql(query)))
            limit.append(seconds(lambda: bare(columns, table)))
        return sorted(ours)[1], sorted(limit)[1]

    with OmniQ(mine) as oq:
        LoopThread.shared().call(fill(oq, rows))
        ours, adbc = compared("select * from events", "*", "events", rows)
        LoopThread.shared().call(fill_results(oq, rows // 5))
        typed, text = compared(
            "select task_id, state, lr, depth, value.score as score, duration from results",
            "task_id, state, arguments, value, started_at, finished_at",
            "results",
            rows // 5,
        )
    report(ours=ours, adbc=adbc, typed_results=typed, adbc_results=text)


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
