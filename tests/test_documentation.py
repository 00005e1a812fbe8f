"""What the documentation shows works as it stands there."""

import doctest
import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import omniq_nb

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
MODULES = [
    info.name
    for info in pkgutil.walk_packages(omniq_nb.__path__, "omniq_nb.")
    if not info.name.startswith(("omniq_nb.testing", "omniq_nb.core.child"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        # Dask leaves an empty folder there.
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_importing_is_light():
    heavy = ["duckdb", "pandas", "pyarrow", "ipywidgets", "numpy", "IPython", "fsspec"]
    code = (
        "import sys, omniq_nb; omniq_nb.OmniQ, omniq_nb.AsyncOmniQ, omniq_nb.configure\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented():
    for name in omniq_nb.__all__:
        assert getattr(omniq_nb, name).__doc__, name
