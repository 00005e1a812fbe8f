"""Notebook 03, whose kernel really is restarted where it asks the reader to do so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from omniq_nb import OmniQ, State
from omniq_nb.liveness import process_start

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "03_background_workers.ipynb"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the notebook runs, and we: its configuration has relative paths."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    with OmniQ.from_yaml("forest-data/omniq.yaml") as oq:
        oq.workers.stop(kind="background", timeout=0)


async def test_after_a_restart_the_work_is_found_where_it_stands(folder):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    numbered = list(enumerate(notebook.cells))
    (restart,) = [n for n, cell in numbered if "restart" in cell.metadata.get("tags", [])]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}})
    async with client.async_setup_kernel():
        for number, cell in numbered[:restart]:
            await client.async_execute_cell(cell, number)
        with OmniQ.from_yaml("forest-data/omniq.yaml") as oq:
            workers = {info.id: info.pid for info in oq.workers.list()}
            assert oq.batch("fires").counts() != {State.SUCCEEDED: 39}
            await client.km.restart_kernel(now=True)
            await client.kc.wait_for_ready(timeout=60)
            for number, cell in numbered[restart:]:
                await client.async_execute_cell(cell, number)
            assert oq.batch("fires").counts() == {State.SUCCEEDED: 39}
            assert set(oq.sql("select distinct worker from results")["worker"]) <= set(workers)
    assert "39 tasks" in notebook.cells[restart + 1].outputs[0].data["text/plain"]
    assert not any(map(process_start, workers.values()))
