"""A day's work by keyboard alone, with a restart of the kernel in the middle."""

import asyncio
import contextlib
import re

import psutil
import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.pages import CELL, focus

PANEL = "import omniq_nb\npanel = omniq_nb.panel()\npanel"
SUBMIT = """
import time
def measured(n):
    time.sleep(0.1)
    return n * n
batch = oq.map(measured, range(100), name="squares")
batch
"""
FIND = """
import omniq_nb
oq = omniq_nb.OmniQ("sqlite:///journey.db")
oq.batch("squares")
"""


WORKER = "omniq_nb.core.launch.detached"
SOME = re.compile(r"[1-9]\d?")


@pytest.fixture
def no_worker_stays(jupyter):
    """End the background workers, however far the test comes: they outlive kernels."""
    yield
    state = jupyter.environment["XDG_STATE_HOME"]
    workers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("XDG_STATE_HOME") == state and WORKER in process.cmdline():
                workers.append(process)
    for process in workers * 2:  # the second time they finish nothing
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(workers, timeout=30)


async def press(page: Page, *keys: str) -> None:
    """Press one key after the other."""
    for key in keys:
        await page.keyboard.press(key)


async def choose(select: Locator, word: str) -> None:
    """Choose an entry by typing it. On a busy machine the browser may take it for several words."""
    for _ in range(5):
        await select.page.keyboard.type(word)
        if await select.input_value() == word:
            return
        await asyncio.sleep(1.5)  # it then forgets what was typed
    raise AssertionError(f"{word!r} is not chosen by typing it")


async def tab(panel: Locator, name: str, control: str, *keys: str) -> None:
    """Go to a tab that is so many arrows away, and wait for what is in it: the kernel sends it."""
    await press(panel.page, *keys, "Enter")
    wanted = panel.get_by_role("tab", name=name)
    await expect(wanted).to_have_attribute("aria-selected", "true")
    await expect(panel.get_by_label(control, exact=True)).to_be_visible(timeout=CELL)


async def to_the_notebook(page: Page) -> None:
    """Leave the panel, by JupyterLab's own link that skips everything else."""
    await focus(page, "Skip to main panel")
    await press(page, "Enter")


async def test_connect_start_watch_ask_restart_and_find_it_again(notebook, page, no_worker_stays):
    opened = await notebook(PANEL, SUBMIT, FIND, "oq.panel()")
    panel = page.locator(".omniq-panel").first
    await press(page, "Shift+Enter")
    await opened.ran(0)
    await expect(panel.get_by_label("Backend", exact=True).first).to_be_visible(timeout=CELL)

    await focus(page, "Backends")
    await focus(page, "Backend")
    await choose(panel.get_by_label("Backend", exact=True).first, "sqlite")
    await focus(page, "URL")
    await page.keyboard.type("sqlite:///journey.db")
    await expect(panel.get_by_label("URL", exact=True).first).to_have_value("sqlite:///journey.db")
    await expect(panel.get_by_label("YAML")).to_contain_text("journey.db", timeout=CELL)
    await focus(page, "Test connection")
    await press(page, "Enter")
    await expect(panel.get_by_text("4 of 4 components work")).to_be_visible(timeout=CELL)
    await focus(page, "Connect")
    await press(page, "Enter")
    await expect(panel.get_by_text("Connected: omniq")).to_be_visible(timeout=CELL)
    await focus(page, "Backends", "Shift+Tab")
    await tab(panel, "Workers", "Kind", "ArrowRight")
    await focus(page, "Kind")
    await choose(panel.get_by_label("Kind"), "background")
    await focus(page, "Start")
    await press(page, "Enter")
    workers = panel.get_by_role("group", name="Workers")
    await expect(workers).to_contain_text("running", timeout=CELL)
    await to_the_notebook(page)
    await press(page, "ArrowDown", "Shift+Enter")
    await opened.ran(1)
    bar = opened.output(1).get_by_role("progressbar", name="squares")
    await expect(bar).to_have_attribute("aria-valuenow", SOME, timeout=CELL)

    await press(page, "0", "0")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await press(page, "Enter")
    await opened.idle()
    await press(page, "Shift+Enter")
    await opened.ran(2)
    bar = opened.output(2).get_by_role("progressbar", name="squares")
    await expect(bar).to_have_attribute("aria-valuenow", "100", timeout=CELL)
    await press(page, "ControlOrMeta+Enter")  # without a new cell below
    await opened.ran(3)
    panel = opened.output(3).locator(".omniq-panel")
    workers = panel.get_by_role("group", name="Workers")
    await expect(workers).to_contain_text("background", timeout=CELL)
    await focus(page, "Workers")
    await tab(panel, "Explore", "SQL", "ArrowRight", "ArrowRight")
    await focus(page, "SQL")
    await press(page, "ControlOrMeta+a")
    await page.keyboard.type("SELECT sum(value::int) AS total FROM results WHERE batch = 'squares'")
    await focus(page, "Run")
    await press(page, "Enter")
    await expect(panel.get_by_role("cell", name="328350", exact=True)).to_be_visible(timeout=CELL)
    await focus(page, "Explore", "Shift+Tab")
    await tab(panel, "Workers", "Kind", "ArrowLeft", "ArrowLeft")
    await focus(page, "Kind")
    await choose(panel.get_by_label("Kind"), "background")
    await focus(page, "Stop")
    await press(page, "Enter")
    await expect(panel.get_by_text("All background workers have stopped")).to_be_visible(
        timeout=CELL
    )
