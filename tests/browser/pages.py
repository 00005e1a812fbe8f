"""What a user does on a page, in words: open a notebook, run it, read an output.

Jupyter's own parts are found by their classes; everything of ours by roles and labels.
"""

import asyncio
import re
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from tests.browser.jupyter import JupyterServer

KERNEL = 60_000.0
"""Milliseconds that a kernel has to start, on a busy machine."""

CELL = 120_000.0
"""Milliseconds that cells have to run."""

PATIENCE = 60_000.0
"""Milliseconds that a picture may take, or whatever is there already but not drawn yet."""


class Notebook:
    """A notebook that is open in JupyterLab or in Notebook 7.

    Parameters
    ----------
    page : Page
        The browser's page.
    server : JupyterServer
        Who serves it.
    path : str
        The notebook, as the server knows it.
    """

    def __init__(self, page: Page, server: JupyterServer, path: str) -> None:
        self.page = page
        self._server = server
        self._path = path

    async def open(self, door: str = "lab") -> None:
        """Open it in `door`, with a workspace of its own, and wait for its kernel."""
        workspace = re.sub(r"\W", "-", self._path)
        address = {
            "lab": f"/lab/workspaces/{workspace}/tree/{self._path}",
            "notebook": f"/notebooks/{self._path}",
        }[door]
        await self.page.goto(f"{self._server.url}{address}?token={self._server.token}")
        await expect(self.cells.first).to_be_visible(timeout=KERNEL)
        await self.idle()

    @property
    def cells(self) -> Locator:
        """The code cells."""
        return self.page.locator(".jp-Notebook .jp-CodeCell")

    def output(self, number: int) -> Locator:
        """What a code cell shows, the first one's with number 0."""
        return self.cells.nth(number).locator(".jp-Cell-outputArea")

    async def idle(self) -> None:
        """Wait until a kernel is there, connected to the page, and does nothing.

        The page shows an idle kernel before it has one, and forgets cells that run then.
        """
        async with asyncio.timeout(KERNEL / 1000):
            while self._server.kernel_state(self._path) != "idle":
                await asyncio.sleep(0.05)
        status = self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        await expect(status.first).to_be_attached(timeout=KERNEL)

    async def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of the menu bar."""
        bar = self.page.get_by_role("menubar").first
        await bar.get_by_role("menuitem", name=menu, exact=True).click()
        await self.page.get_by_role("menu").get_by_text(entry, exact=True).click()

    async def run_all(self) -> None:
        """Run all cells and wait until the last one is done."""
        await self.choose("Run", "Run All Cells")
        await self.ran()

    async def run_cell(self, number: int) -> None:
        """Run one code cell, as a user does: click into it and press Shift+Enter."""
        cell = self.cells.nth(number)
        await cell.locator(".jp-InputArea-editor").click()
        await self.page.keyboard.press("Shift+Enter")
        await self.ran(number)

    async def ran(self, number: int | None = None) -> None:
        """Wait until a cell, or all cells, have run to their end, or until none will any more."""
        cells = range(await self.cells.count()) if number is None else [number]
        failed = self.page.locator("[data-mime-type='application/vnd.jupyter.error']")
        for cell in cells:
            prompt = self.cells.nth(cell).locator(".jp-InputPrompt")
            done = prompt.filter(has_text=re.compile(r"\[\d+\]:"))
            await expect(done.or_(failed).first).to_be_visible(timeout=CELL)
            if not await done.count():
                raise AssertionError(await failed.first.inner_text())

    async def restart(self) -> None:
        """Restart the kernel, and confirm it."""
        await self.choose("Kernel", "Restart Kernel…")
        await self.page.get_by_role("button", name="Confirm Kernel Restart").click()
        await self.idle()


async def open_dashboard(page: Page, server: JupyterServer, path: str) -> None:
    """Open a notebook in Voila, which has run it when the page is there."""
    await page.goto(f"{server.url}/voila/render/{path}?token={server.token}", timeout=CELL)


async def focus(page: Page, name: str, key: str = "Tab") -> None:
    """Press Tab, or Shift+Tab, until the control of that name has the focus."""
    for _ in range(60):
        await page.keyboard.press(key)
        label = await page.evaluate(
            "() => { const e = document.activeElement;"
            "return e.labels?.length ? e.labels[0].textContent : e.ariaLabel ?? e.textContent }"
        )
        if label.strip() == name:
            return
    raise AssertionError(f"Tab never reaches {name!r}")


async def open_tab(page: Page, name: str) -> None:
    """Go to a tab of the panel as a keyboard's user does."""
    current = page.locator(".omniq-panel").get_by_role("tab", selected=True)
    await current.focus()
    tab = page.locator(".omniq-panel").get_by_role("tab", name=name)
    for _ in range(4):
        if await tab.evaluate("e => e === document.activeElement"):
            break
        await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    await expect(tab).to_have_attribute("aria-selected", "true")


async def accessible(page: Page, part: str = ".omniq-panel") -> None:
    """Have axe-core look for what shuts somebody out of the panel, or of the cards: `.omniq`."""
    # Plots are drawn by the front end, which also puts a menu without a name beside them.
    found = await Axe().run(page, {"include": [[part]], "exclude": [[".vega-embed summary"]]})
    assert found.response["passes"]
    shut_out = [
        (each["id"], node["html"], node["failureSummary"])
        for each in found.response["violations"]
        for node in each["nodes"]
    ]
    assert not shut_out, "\n".join(map(str, shut_out))


async def picture(target: Page | Locator, path: Path) -> None:
    """Save a picture of a page or of a part of it, once nothing moves any more.

    It is there whole or not at all: the site may be built meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = await target.screenshot(animations="disabled", timeout=PATIENCE)
    whole = path.with_name(f".{path.name}")  # MkDocs leaves dotted names alone
    whole.write_bytes(made)
    whole.replace(path)
