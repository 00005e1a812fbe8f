"""Cards and plots as a user sees them: under the cell, kept up to date, with no network.

Behind each door: JupyterLab 4, Notebook 7, Voila. What is printed is there as well.
"""

import pytest
from playwright.async_api import expect

from tests.browser.jupyter import ROOT
from tests.browser.pages import CELL, open_dashboard, picture

PICTURES = ROOT / "site" / "pictures"

SUBMIT = """
import time
from omniq_nb import OmniQ
oq = OmniQ("memory://")
def fit(lr, depth):
    time.sleep(0.01)
    return lr * depth
sweep = oq.map(fit, lr=[0.1, 0.2, 0.3], depth=[2, 4, 8], name="sweep-1")
sweep
"""
WORK = "workers = oq.workers.start(2)\nprint(len(sweep.results(timeout=60)), 'values')"
PLOT = "sweep.plot('sweep')"


@pytest.mark.parametrize("door", ["lab", "notebook"])
async def test_a_card_follows_its_batch_and_a_plot_is_drawn_by_the_page(notebook, page, door):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    opened = await notebook(SUBMIT, WORK, PLOT, door=door)
    await opened.run_cell(0)
    bar = opened.output(0).get_by_role("progressbar", name="sweep-1")
    await expect(bar).to_have_attribute("aria-valuenow", "0")
    await expect(opened.output(0)).to_contain_text("no worker serves the queue 'default'")
    await opened.run_cell(1)
    await expect(opened.output(1)).to_have_text("9 values")
    await expect(bar).to_have_attribute("aria-valuenow", "9")
    await expect(opened.output(0)).to_contain_text("9 succeeded")
    await opened.run_cell(2)
    plot = opened.output(2).locator(".vega-embed canvas, .vega-embed svg").first
    await expect(plot).to_be_visible(timeout=CELL)
    await picture(opened.output(0), PICTURES / f"card-{door}.png")
    await picture(opened.output(2), PICTURES / f"plot-{door}.png")
    assert {url for url in asked if "://127.0.0.1" not in url and "://" in url} == set()


async def test_a_dashboard_shows_the_card_and_the_plot(page, jupyter):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    await open_dashboard(page, jupyter, jupyter.add("voila/cards", SUBMIT, WORK, PLOT))
    bar = page.get_by_role("progressbar", name="sweep-1")
    await expect(bar).to_have_attribute("aria-valuenow", "9", timeout=CELL)
    await expect(page.get_by_text("9 succeeded")).to_be_visible()
    await expect(page.get_by_text("9 values")).to_be_visible()
    await expect(page.locator(".vega-embed canvas, .vega-embed svg").first).to_be_visible()
    await expect(page.get_by_text("Error")).to_have_count(0)
    await picture(page, PICTURES / "voila.png")
    # Voila itself asks for MathJax and its icons.
    assert [url for url in asked if "vega" in url and "://127.0.0.1" not in url] == []
