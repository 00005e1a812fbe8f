"""What the notebook's face costs, measured in JupyterLab in Chromium.

``python -m tests.benchmarks.face [--quick]`` writes `docs/benchmarks-notebook.md`. Each figure is
the median of several runs, each with a kernel and a page of its own.
"""

import asyncio
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import (
    Browser,
    CDPSession,
    Page,
    WebSocket,
    async_playwright,
    expect,
)

from tests.benchmarks.page import taken
from tests.browser.conftest import FLAGS
from tests.browser.jupyter import ROOT, JupyterServer
from tests.browser.pages import Notebook, open_tab

TABLE = ROOT / "docs" / "benchmarks-notebook.md"
RUNS = 5
PATIENCE = 300_000.0
"""Milliseconds that anything may take."""

LONG = ("long", "short")
"""The measures of which the page's memory is compared: they differ in the number of tasks alone."""

Figures = dict[str, float]

SETUP = """
import statistics, time
from omniq_nb import OmniQ
oq = OmniQ("memory://")
def nothing(n):
    return n
"""

SUBMIT = """
def submitted(store):
    with OmniQ(store) as oq:
        f = oq.task(nothing)
        f.submit(0)
        begin = time.perf_counter()
        handles = [f.submit(n) for n in range(1000)]
        one_by_one = time.perf_counter() - begin
        begin = time.perf_counter()
        batch = f.map(range(1000))
        return one_by_one, time.perf_counter() - begin
import json, tempfile
with tempfile.TemporaryDirectory() as folder:
    said = [*submitted("memory://"), *submitted(f"sqlite:///{folder}/omniq.db")]
print("SAID", json.dumps(said))
"""

HELD = """
import asyncio, threading
held = {}
run = asyncio.events.Handle._run
def timed(handle):
    wall, cpu = time.perf_counter(), time.thread_time()
    run(handle)
    took = (time.perf_counter() - wall, time.thread_time() - cpu)
    name = "main" if threading.current_thread() is threading.main_thread() else "loop"
    for kind, seconds in zip(("wall", "cpu"), took):
        held[f"{name} {kind}"] = max(held.get(f"{name} {kind}", 0.0), seconds)
asyncio.events.Handle._run = timed
"""

WATCH = """
panel = oq.panel()
panel
"""


class Traffic:
    """Counts the kernel's messages to the page by the view that they are of."""

    def __init__(self, page: Page) -> None:
        self.seen: dict[str, list[float]] = defaultdict(list)
        page.on("websocket", self._attend)

    def _attend(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._received)

    def _received(self, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else frame
        kind = re.search(rb'"msg_type": ?"(comm_msg|update_display_data)"', data)
        if kind is None:
            return
        view = re.search(rb'"(?:comm_id|display_id)": ?"([0-9a-f]+)"', data)
        self.seen[view[1].decode() if view else "?"].append(time.monotonic())

    def busiest(self, since: float, until: float) -> float:
        """Messages per second of the view that had most of them."""
        counts = [sum(since <= at <= until for at in times) for times in self.seen.values()]
        return max(counts, default=0) / (until - since)


class Lab:
    """JupyterLab in a browser, for one measurement.

    Parameters
    ----------
    browser : Browser
        The browser.
    server : JupyterServer
        The server.
    name : str
        The notebook's.
    """

    def __init__(self, browser: Browser, server: JupyterServer, name: str) -> None:
        self.browser, self.server, self.name = browser, server, name
        self.page: Page
        self.traffic: Traffic
        self.notebook: Notebook

    async def open(self, *cells: str) -> None:
        """Open a notebook of these cells."""
        self.page = await self.browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.set_default_timeout(PATIENCE)
        self.traffic = Traffic(self.page)
        self.notebook = Notebook(self.page, self.server, self.server.add(self.name, *cells))
        await self.notebook.open()

    async def close(self) -> None:
        """Close the page and end the kernel."""
        await self.page.close()
        self.server.end_kernels()

    async def said(self, number: int) -> Any:
        """What a cell has printed behind the word SAID."""
        text = await self.notebook.output(number).inner_text()
        return json.loads(text.partition("SAID ")[2].splitlines()[0])

    async def until(self, condition: str, act: Callable[[], Awaitable[None]]) -> float:
        """Seconds from an act until a condition of the page is true, as the page sees it."""
        await self.page.evaluate(
            "condition => { const holds = new Function(`return ${condition}`);"
            "window.omniqSeen = new Promise(done => { const look = () => holds()"
            "? done(performance.now()) : requestAnimationFrame(look);"
            "window.omniqLook = () => { window.omniqBegan = performance.now(); look(); }; });"
            "for (const kind of ['keydown', 'click']) addEventListener(kind, window.omniqLook,"
            "{capture: true, once: true}); }",
            condition,
        )
        await act()
        return float(await self.page.evaluate("window.omniqSeen.then(t => t - omniqBegan)")) / 1000


async def panel_shown(lab: Lab) -> Figures:
    """From running the cell to seeing the panel, in a kernel that never showed one."""
    timed = (
        "begin = time.perf_counter()\npanel = oq.panel()\nbundle = panel._repr_mimebundle_()\n"
        "took = time.perf_counter() - begin\npanel"
    )
    await lab.open(SETUP, timed, "print('SAID', took)")
    await lab.notebook.run_cell(0)
    await lab.notebook.cells.nth(1).locator(".jp-InputArea-editor").click()
    shown = await lab.until(
        "document.querySelector('.omniq-panel [role=tab]') !== null "
        "&& document.querySelector('.omniq-panel button') !== null",
        lambda: lab.page.keyboard.press("Shift+Enter"),
    )
    await lab.notebook.ran(1)
    await lab.notebook.run_cell(2)
    return {"panel": shown, "panel python": await lab.said(2)}


async def submitting(lab: Lab) -> Figures:
    """Submitting a thousand tasks in a cell."""
    await lab.open(SETUP, SUBMIT)
    await lab.notebook.run_cell(0)
    await lab.notebook.run_cell(1)
    names = ("memory one by one", "memory map", "sqlite one by one", "sqlite map")
    return dict(zip(names, await lab.said(1), strict=True))


async def watching(lab: Lab, first: int, rest: int) -> Figures:
    """A card and the panel's tab Live, while so many tasks run, and then so many more."""
    begin = "held.clear()\nw = oq.workers.start(2)"
    sizes = {"first": first, "rest": rest}
    cells = [SETUP + HELD, WATCH]
    for name, size in sizes.items():
        cells += [f"oq.workers.stop()\noq.map(nothing, range({size}), name={name!r})", begin]
    await lab.open(*cells, "import json\nprint('SAID', json.dumps(held))")
    for number in range(2):
        await lab.notebook.run_cell(number)
    await lab.page.locator(".omniq-panel").get_by_role("button", name="Start").first.wait_for()
    await open_tab(lab.page, "Live")
    session = await lab.page.context.new_cdp_session(lab.page)
    held, messages = [], []
    for number, (name, size) in zip((2, 4), sizes.items(), strict=True):
        await lab.notebook.run_cell(number)
        began = time.monotonic()
        await lab.notebook.run_cell(number + 1)
        bar = lab.page.get_by_role("progressbar", name=name)
        await expect(bar).to_have_attribute("aria-valuenow", str(size), timeout=PATIENCE)
        messages.append(lab.traffic.busiest(began, max(time.monotonic(), began + 1.0)))
        await asyncio.sleep(2)  # the panel's last look
        held.append(await memory(session))
    await lab.notebook.run_cell(6)
    return {
        "messages": max(messages),
        "page before": held[0],
        "page after": held[1],
        **await lab.said(6),
    }


async def memory(session: CDPSession) -> float:
    """Megabytes that the page's JavaScript holds, once what is not needed is thrown away."""
    await session.send("Performance.enable")
    for _ in range(3):
        await session.send("HeapProfiler.collectGarbage")
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize") / 2**20


async def table(lab: Lab) -> Figures:
    """A million rows: the first page, another page, a sort."""
    await lab.open(SETUP, WATCH)
    for number in range(2):
        await lab.notebook.run_cell(number)
    panel = lab.page.locator(".omniq-panel")
    await panel.get_by_role("button", name="Start").first.wait_for()
    await open_tab(lab.page, "Explore")
    query = "SELECT range AS n, hash(range) % 1000 AS word, random() AS x FROM range(1000000)"
    await panel.get_by_label("SQL").fill(query)
    run = panel.get_by_role("button", name="Run", exact=True)
    rows = "document.querySelector('.omniq-grid [role=status]')?.textContent"
    first = await lab.until(f"{rows} === '1 to 50 of 1,000,000 rows'", run.click)
    forth = panel.get_by_role("button", name="Next rows")
    page = await lab.until(f"{rows} === '51 to 100 of 1,000,000 rows'", forth.click)
    head = panel.get_by_role("button", name="x", exact=True)
    last = "[...document.querySelectorAll('.omniq-grid tbody td:last-child')]"
    ordered = f"{last}.length === 50 && {last}.every(c => Number(c.textContent) < 0.001)"
    taken = await lab.until(ordered, head.click)
    return {"query and first page": first, "another page": page, "sort": taken}


async def measured(quick: bool) -> Figures:
    """All figures."""
    measures: dict[str, tuple[Callable[..., Awaitable[Figures]], tuple[int, ...], int]] = {
        "panel": (panel_shown, (), RUNS),
        "submit": (submitting, (), RUNS),
        "watch": (watching, (1_000, 9_000), 3),
        "long": (watching, (10_000, 90_000), 3),
        "short": (watching, (10_000, 1_000), 3),
        "table": (table, (), RUNS),
    }
    found: Figures = {}
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, JupyterServer(Path(folder)) as server:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
            for name, (measure, words, runs) in measures.items():
                rounds = []
                for number in range(1 if quick else runs):
                    print(f"{name}: round {number + 1}", file=sys.stderr, flush=True)
                    lab = Lab(browser, server, f"{name}-{number}")
                    rounds.append(await measure(lab, *words))
                    await lab.close()
                for key in rounds[0]:
                    values = [one[key] for one in rounds if key in one]
                    found[f"{name}: {key}"] = statistics.median(values)
            await browser.close()
    return found


GOALS: tuple[tuple[str, str, float, str], ...] = (
    ("from `oq.panel()` to shown", "panel: panel", 1.0, "s"),
    ("of it in Python", "panel: panel python", 0.3, "s"),
    ("a cell submits 1,000 tasks one by one, memory", "submit: memory one by one", 0.2, "s"),
    ("the same with `map`, memory", "submit: memory map", 0.2, "s"),
    ("one by one, SQLite", "submit: sqlite one by one", 0.2, "s"),
    ("with `map`, SQLite", "submit: sqlite map", 0.2, "s"),
    ("longest hold of the kernel's main thread, 10,000 tasks", "watch: main cpu", 0.05, "s"),
    ("longest hold of omniq's loop, 10,000 tasks", "watch: loop cpu", 0.05, "s"),
    ("messages per second of the busiest view, 10,000 tasks", "watch: messages", 5.0, "/s"),
    ("the same, 100,000 tasks", "long: messages", 5.0, "/s"),
    ("page's memory grows by 90,000 tasks after the first 10,000", "by tasks", 0.5, "MB"),
    ("a million rows: query and first page", "table: query and first page", 0.5, "s"),
    ("another page of them", "table: another page", 0.5, "s"),
    ("a sort of them", "table: sort", 1.0, "s"),
)
"""What is measured, its figure, and the most that it may be."""

ABOUT = """
In JupyterLab {lab} in Chromium, on the same machine as its kernel and server. A card and the
panel's tab *Live* are open while no-op tasks run on two threads of the kernel, and no cell. A hold
is the longest that one callback of an event loop, the kernel's or omniq's own, takes of the
processor. By the clock, with the tasks' threads wanting Python's lock as well, it was
{main:.3f} s and {loop:.3f} s. Memory is what the page's JavaScript holds once garbage is collected,
without the {cells:.2f} MB by which the cells and the card of a second batch, of 1,000 tasks, let it
grow.
"""


def written(found: Figures, runs: str) -> str:
    """The page."""
    from jupyterlab import __version__ as lab

    about = ABOUT.format(
        lab=lab,
        main=found["watch: main wall"],
        loop=found["watch: loop wall"],
        cells=found["by cells"],
    )
    lines = [
        "# Benchmarks in the notebook",
        "",
        f"Written by `python -m tests.benchmarks.face`: {runs}.",
        taken(),
        about,
        "| what | measured | at most | |",
        "|---|---:|---:|---|",
    ]
    for what, key, most, unit in GOALS:
        figure = found[key]
        verdict = "yes" if figure <= most else "NO"
        lines.append(f"| {what} | {figure:.3g} {unit} | {most:g} {unit} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    quick = "--quick" in sys.argv[1:]
    found = asyncio.run(measured(quick))
    growth = {name: found[f"{name}: page after"] - found[f"{name}: page before"] for name in LONG}
    found["by cells"], found["by tasks"] = (
        growth["short"],
        max(0.0, growth["long"] - growth["short"]),
    )
    print(json.dumps(found, indent=1), file=sys.stderr)
    runs = "one run" if quick else f"medians of {RUNS} runs, of fewer where tasks are watched"
    page = written(found, runs)
    TABLE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
