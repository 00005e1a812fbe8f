"""Pictures for the documentation, light and dark: of cards, of a plot, of the panel's tabs.

They go to `docs/pictures`, which git does not keep; `docs/hooks/pictures.py` shows them.
"""

import pytest
from playwright.async_api import Locator, expect

from tests.browser.jupyter import ROOT
from tests.browser.pages import CELL, PATIENCE, accessible, open_tab, picture

FOLDER = ROOT / "docs" / "pictures"

NAMES = (
    *("card", "card-task", "card-workers", "task", "plot"),
    *("panel-backends", "panel-workers", "panel-live", "panel-explore"),
)
"""What pages may show: of each there is one for light pages and one for dark ones."""

SETUP = """
%load_ext omniq_nb
%omniq connect memory://
import random, time
from omniq_nb import current_task

def fit(lr, depth):
    time.sleep(random.Random(f"{lr} {depth}").uniform(0.02, 0.2))
    while depth == 16 and 0.25 <= lr <= 0.3:  # until the kernel ends
        current_task().check()
        time.sleep(0.05)
    if lr > 0.4:
        raise ValueError("the loss is not finite")
    return {"accuracy": 1 - abs(lr - 0.2) / depth}

def evaluate(fold):
    current_task().progress(3, 10, "fold 3: accuracy 0.93")
    while True:
        current_task().check()
        time.sleep(0.05)

oq.workers.start(4);
"""
SWEEP = """
lrs = [0.05, 0.5, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]
sweep = oq.map(fit, lr=lrs, depth=[2, 3, 4, 6, 8, 10], name="forest")
done = sweep.wait()
"""
TASK = """%%task report -o best
import pandas as pd
for epoch in range(5):
    print(f"epoch {epoch}: loss {1 / (epoch + 1):.3f}")
best = 4
pd.DataFrame({"epoch": range(5), "loss": [1, 0.5, 0.333, 0.25, 0.2]})
"""
LONG = """
report.result()
long = [oq.submit(evaluate, fold) for fold in range(2)]
long[0]
"""
# Two workers are left for it, and stay with two of its tasks.
CARD = 'deeper = oq.map(fit, lr=lrs, depth=[12, 16, 20], name="deeper")\ndeeper'
CELLS = (
    SETUP,
    SWEEP,
    TASK,
    LONG,
    CARD,
    "oq.workers",
    "sweep.plot('sweep', value='accuracy')",
    "oq.panel()",
)


async def drawn(output: Locator) -> None:
    """Wait until a plot is drawn."""
    plot = output.locator(".vega-embed canvas, .vega-embed svg").first
    await expect(plot).to_be_visible(timeout=PATIENCE)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pictures_are_made_and_nothing_on_them_shuts_anybody_out(notebook, page, theme):
    await page.emulate_media(color_scheme=theme)
    await page.set_viewport_size({"width": 1000, "height": 1000})

    async def take(name: str, target: Locator) -> None:
        assert name in NAMES
        await picture(target, FOLDER / f"{name}-{theme}.png")

    opened = await notebook(*CELLS, door="notebook")
    await opened.run_all()
    task, one, card, workers, plot, panel = (opened.output(number) for number in range(2, 8))
    await expect(task).to_contain_text("best came back.", timeout=CELL)
    await expect(one).to_contain_text("fold 3", timeout=CELL)
    await expect(card).to_contain_text("2 running", timeout=CELL)
    await expect(card).to_contain_text("3 failed: ValueError", timeout=CELL)
    await drawn(plot)
    await accessible(page, ".omniq")
    await take("task", task)
    await take("card-task", one)
    await take("card", card)
    await take("card-workers", workers)
    await take("plot", plot)

    shown = page.locator(".omniq-panel")
    await expect(shown.get_by_role("group", name="Workers")).to_contain_text(
        "evaluate", timeout=CELL
    )
    await take("panel-workers", panel)
    await accessible(page)
    await open_tab(page, "Backends")
    backend = shown.get_by_label("Backend", exact=True).first
    await expect(backend).to_be_visible(timeout=PATIENCE)
    await take("panel-backends", panel)
    await accessible(page)
    await open_tab(page, "Live")
    throughput = shown.get_by_role("img", name="Throughput")
    await expect(throughput).to_be_visible(timeout=CELL)
    await take("panel-live", panel)
    await accessible(page)
    await page.set_viewport_size({"width": 1000, "height": 1500})
    await open_tab(page, "Explore")
    await shown.get_by_role("button", name="Run", exact=True).click()
    await expect(shown.get_by_text("1 to 50 of")).to_be_visible(timeout=CELL)
    await shown.get_by_role("button", name="Histogram").click()
    await drawn(shown)
    await take("panel-explore", panel)
    await accessible(page)
