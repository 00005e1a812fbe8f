"""Workers that are killed and frozen at any moment lose nothing. See `tests.benchmarks.torture`."""

import pytest

from tests.benchmarks.torture import torture
from tests.core.clients import url_of


@pytest.mark.parametrize("backend", ["sqlite", "file"])
def test_nothing_is_lost_when_workers_and_kernel_die_or_sleep(tmp_path, monkeypatch, backend):
    monkeypatch.setattr("tests.benchmarks.torture.PATIENCE", 300.0)
    outcome = torture(
        url_of(backend, tmp_path), 2_000, kill_every=0.3, kills=10, freeze_every=1.0, freezes=2
    )
    assert outcome.kernels == 1
    assert outcome.kills
    assert outcome.freezes
    assert (outcome.lost, outcome.twice) == (0, 0)
