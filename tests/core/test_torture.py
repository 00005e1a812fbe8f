"""Workers that are killed and frozen at any moment lose nothing. See `tests.benchmarks.torture`."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.benchmarks.torture import torture
from tests.core.clients import url_of


@pytest.mark.long
def test_nothing_is_lost_when_workers_and_kernel_die_or_sleep(tmp_path, monkeypatch):
    """Two stores at once: most of the time leases of the frozen are awaited."""
    monkeypatch.setattr("tests.benchmarks.torture.PATIENCE", 300.0)

    def outcome(backend):
        url = url_of(backend, tmp_path)
        return torture(url, 2_000, kill_every=0.3, kills=10, freeze_every=1.0, freezes=2)

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(outcome, ["sqlite", "file"]))
    assert all(outcome.kernels == 1 for outcome in outcomes), outcomes
    assert all(outcome.kills and outcome.freezes for outcome in outcomes), outcomes
    assert all((outcome.lost, outcome.twice) == (0, 0) for outcome in outcomes), outcomes
