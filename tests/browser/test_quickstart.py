"""The quickstart in JupyterLab."""

import shutil

from playwright.async_api import expect

from tests.browser.jupyter import ROOT
from tests.browser.pages import Notebook


async def test_it_runs_without_a_warning_and_shows_its_tables(page, jupyter):
    folder = jupyter.notebooks / "quickstart"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", folder)
    notebook = Notebook(page, jupyter, "quickstart/01_quickstart.ipynb")
    await notebook.open()
    await notebook.run_all()
    await expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    results = page.get_by_role("table").filter(has_text="accuracy")
    await expect(results.first).to_be_visible()
