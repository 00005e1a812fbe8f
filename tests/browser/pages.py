"""What a user does on a page, in words: open a notebook, run it, read an output.

Jupyter's own parts are found by their classes; everything of ours by roles and labels.
"""

import asyncio
import re
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from tests.browser.jupyter import JupyterServer

KERNEL = 60_000.0
"""Milliseconds that a kernel has to start, on a busy machine."""

CELL = 120_000.0
"""Milliseconds that cells have to run."""


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
        """Wait until a cell, or all cells, have run to their end."""
        cells = range(await self.cells.count()) if number is None else [number]
        for cell in cells:
            prompt = self.cells.nth(cell).locator(".jp-InputPrompt")
            await expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=CELL)

    async def restart(self) -> None:
        """Restart the kernel, and confirm it."""
        await self.choose("Kernel", "Restart Kernel…")
        await self.page.get_by_role("button", name="Confirm Kernel Restart").click()
        await self.idle()


async def open_dashboard(page: Page, server: JupyterServer, path: str) -> None:
    """Open a notebook in Voila, which has run it when the page is there."""
    await page.goto(f"{server.url}/voila/render/{path}?token={server.token}", timeout=CELL)


async def picture(target: Page | Locator, path: Path) -> None:
    """Save a picture of a page or of a part of it, once nothing moves any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    await target.screenshot(path=path, animations="disabled")
