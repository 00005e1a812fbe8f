"""The page about the magics works as it stands there."""

import re
from pathlib import Path

from tests.notebook.shells import notebook

PAGE = Path(__file__).parents[2] / "docs" / "magics.md"


def test_the_cells_of_the_page_run_from_top_to_bottom(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = re.findall(r"^```ipython\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    with notebook() as nb:
        for cell in cells:
            nb.run(cell)
    assert len(cells) > 10
