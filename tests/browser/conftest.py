"""One Jupyter server and one browser for all tests of the suite; a page and kernels for each."""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.jupyter import ROOT, JupyterServer
from tests.browser.pages import Notebook, picture

HERE = Path(__file__).parent

FAILED = pytest.StashKey[bool]()
FAILURES = ROOT / "site" / "failures"
"""Where pages of failed tests are kept as pictures; not in git."""

FLAGS = [
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-first-run",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the suite in one process and on one event loop: the browser's."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let the fixtures know that the test failed."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """The Jupyter server."""
    with JupyterServer(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The browser."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail(
            "The browser suite needs `chromium` on the PATH: `apt-get install chromium`, "
            'or run the other tests with `-m "not browser"`.'
        )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(
    chromium: Browser, jupyter: JupyterServer, request: pytest.FixtureRequest
) -> AsyncIterator[Page]:
    """A page of a user who was never here before."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    yield page
    if request.node.stash.get(FAILED, False):
        await picture(page, FAILURES / f"{_name(request)}.png")
    await context.close()
    jupyter.end_kernels()


@pytest.fixture
def notebook(
    page: Page, jupyter: JupyterServer, request: pytest.FixtureRequest
) -> Callable[..., Awaitable[Notebook]]:
    """Open a notebook of these code cells: ``await notebook("1 + 1", door="lab")``."""

    async def open_notebook(*cells: str, door: str = "lab") -> Notebook:
        opened = Notebook(page, jupyter, jupyter.add(f"{_name(request)}/notebook", *cells))
        await opened.open(door)
        return opened

    return open_notebook


def _name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "-", request.node.name).strip("-")
