"""The panel in a browser: a large table by keyboard, and all of it behind each door.

Not here: a day's work in it (`test_journey.py`), and whom it shuts out (`test_pictures.py`).
"""

import pytest
from playwright.async_api import expect

from tests.browser.pages import CELL, accessible, focus, open_dashboard, open_tab

OPEN = """
import omniq_nb
oq = omniq_nb.OmniQ("memory://")
oq.map(abs, range(120), name="numbers")
oq.panel()
"""


async def test_a_million_rows_by_keyboard(notebook, page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    opened = await notebook(OPEN)
    await opened.run_all()
    await expect(page.get_by_label("Kind")).to_be_visible(timeout=CELL)
    await open_tab(page, "Explore")
    await focus(page, "SQL")
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("SELECT range AS n FROM range(1000000)")
    await focus(page, "Run")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1 to 50 of 1,000,000 rows")).to_be_visible(timeout=CELL)
    await focus(page, "n")
    heads = page.get_by_role("columnheader", name="n")
    await page.keyboard.press("Enter")
    await expect(heads).to_have_attribute("aria-sort", "ascending", timeout=CELL)
    await page.keyboard.press("Enter")
    await expect(heads).to_have_attribute("aria-sort", "descending", timeout=CELL)
    await expect(page.get_by_role("cell", name="999999", exact=True)).to_be_visible()
    assert {url for url in asked if "://127.0.0.1" not in url and "://" in url} == set()


@pytest.mark.parametrize("door", ["notebook", "voila"])
async def test_it_works_behind_every_door(notebook, page, jupyter, door):
    if door == "voila":
        await open_dashboard(page, jupyter, jupyter.add("voila/panel", OPEN))
    else:
        opened = await notebook(OPEN, door=door)
        await opened.run_all()
    await page.get_by_role("button", name="Start", exact=True).click(timeout=CELL)
    await open_tab(page, "Live")
    await expect(page.get_by_role("row", name="default")).to_contain_text("120", timeout=CELL)
    await expect(page.get_by_role("img", name="Throughput")).to_be_visible(timeout=CELL)
    await accessible(page)
    await open_tab(page, "Explore")
    await page.get_by_role("button", name="Run", exact=True).click()
    await expect(page.get_by_text("1 to 50 of 120 rows")).to_be_visible(timeout=CELL)
    await page.get_by_role("button", name="Next rows").click()
    await expect(page.get_by_text("51 to 100 of 120 rows")).to_be_visible(timeout=CELL)
