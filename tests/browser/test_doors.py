"""The same notebook behind each door: JupyterLab 4, Notebook 7, Voila."""

import shutil

import pytest
from playwright.async_api import expect

from tests.browser.jupyter import ROOT
from tests.browser.pages import Notebook, open_dashboard

SUBMIT = """
from omniq_nb import OmniQ
oq = OmniQ("memory://")
oq.workers.start(2)
print("answer:", oq.submit(pow, 2, 10).result(timeout=60))
"""


@pytest.mark.parametrize("door", ["lab", "notebook"])
async def test_a_notebook_submits_and_gets_its_result(notebook, door):
    opened = await notebook(SUBMIT, door=door)
    await opened.run_all()
    await expect(opened.output(0)).to_contain_text("answer: 1024")


async def test_voila_shows_the_result(page, jupyter):
    await open_dashboard(page, jupyter, jupyter.add("voila/smoke", SUBMIT))
    await expect(page.get_by_text("answer: 1024")).to_be_visible()


async def test_after_a_restart_the_work_is_found_again(notebook):
    opened = await notebook(
        "from omniq_nb import OmniQ\noq = OmniQ('sqlite:///tasks.db')",
        "sweep = oq.map(abs, [-1, -2, -3], name='again')\nprint([h.status() for h in sweep])",
        "oq.workers.start(1)\nprint(sweep.results(timeout=60))",
    )
    await opened.run_all()
    await expect(opened.output(2)).to_contain_text("[1, 2, 3]")
    await opened.restart()
    await opened.run_cell(0)
    await opened.run_cell(1)
    await expect(opened.output(1)).to_contain_text("succeeded")


async def test_the_quickstart_runs_in_jupyterlab(page, jupyter):
    folder = jupyter.notebooks / "quickstart"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", folder)
    notebook = Notebook(page, jupyter, "quickstart/01_quickstart.ipynb")
    await notebook.open()
    await notebook.run_all()
    await expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    results = page.get_by_role("table").filter(has_text="accuracy")
    await expect(results.first).to_be_visible()
