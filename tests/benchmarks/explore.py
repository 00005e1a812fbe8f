"""A million events of PostgreSQL as a DataFrame: through omniq_nb, and by bare ADBC.

``python -m tests.benchmarks.explore URL [ROWS]``.
"""

import sys
from pathlib import Path

import pandas as pd
from adbc_driver_postgresql import dbapi

from omniq_nb import OmniQ
from omniq_nb.portal import LoopThread
from tests.benchmarks.history import fill
from tests.benchmarks.measure import report, seconds
from tests.benchmarks.ours import place


def main(url: str, rows: int) -> None:
    """Fill, read three times on each side, report medians."""
    mine = place(url, Path())
    schema = mine.rpartition("=")[2]

    def bare() -> pd.DataFrame:
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {schema}.omniq_events")
            table: pd.DataFrame = cursor.fetch_df()
            return table

    with OmniQ(mine) as oq:
        LoopThread.shared().call(fill(oq, rows))
        assert len(bare()) == len(oq.sql("select * from events")) == rows
        ours, limit = [], []
        for _ in range(3):
            ours.append(seconds(lambda: oq.sql("select * from events")))
            limit.append(seconds(bare))
    report(ours=sorted(ours)[1], adbc=sorted(limit)[1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
