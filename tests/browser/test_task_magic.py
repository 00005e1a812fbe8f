"""`%%task` as a user sees it: output, value and errors stand under the cell that they are of."""

import pytest
from playwright.async_api import expect

from tests.browser.jupyter import ROOT
from tests.browser.pages import CELL, picture

SETUP = """import pathlib, time
%load_ext omniq_nb
%omniq connect memory://
oq.workers.start(2);
def wait_for(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.01)
"""

TASK = """%%task fit -o best
import pandas as pd
for epoch in range(3):
    print("epoch", epoch)
wait_for("go")
best = 0.25
pd.DataFrame({"epoch": [0, 1, 2], "loss": [1.0, 0.5, best]})
"""


@pytest.mark.parametrize("door", ["lab", "notebook"])
async def test_a_cell_runs_beside_the_others(notebook, door):
    opened = await notebook(
        SETUP, TASK, "print('the notebook is free')", "open('go', 'w').close()",
        "%%task\ndef ratio(a, b):\n    return a / b\nratio(1, 0)", door=door,
    )  # fmt: skip
    for number in range(3):
        await opened.run_cell(number)
    task, other, failed = opened.output(1), opened.output(2), opened.output(4)
    await expect(task).to_contain_text("epoch 2", timeout=CELL)
    await expect(task).to_contain_text("running", timeout=CELL)
    await expect(other).to_have_text("the notebook is free")
    await picture(opened.page, ROOT / "site" / "pictures" / f"task-{door}-running.png")
    await opened.run_cell(3)
    await expect(task).to_contain_text("succeeded", timeout=CELL)
    await expect(task).to_contain_text("best came back.")
    await expect(task.get_by_role("columnheader", name="loss")).to_be_visible()
    await opened.run_cell(4)
    await expect(failed).to_contain_text("ZeroDivisionError: division by zero", timeout=CELL)
    await expect(failed).to_contain_text("line 3, in ratio")
    await expect(other).to_have_text("the notebook is free")
    await picture(opened.page, ROOT / "site" / "pictures" / f"task-{door}.png")
