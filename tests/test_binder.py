"""What `binder/` describes is enough for the quickstart, and opens on it."""

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.browser.jupyter import ROOT, JupyterServer

QUICKSTART = "/lab/tree/notebooks/01_quickstart.ipynb"


def run(*command, cwd, **environment):
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_PATH")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, cwd=cwd, env=env | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.long
def test_its_requirements_are_enough_for_the_quickstart(tmp_path):
    clone = tmp_path / "clone"
    wanted = ["binder", "notebooks", "omniq_nb", "pyproject.toml", "README.md", "LICENSE"]
    clone.mkdir()
    for name in wanted:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    shutil.rmtree(clone / "notebooks" / "quickstart-data", ignore_errors=True)

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    # Not compiled: the quickstart imports a part of it only.
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", "--quiet")
    run(*pip, "--disable-pip-version-check", "-r", "binder/requirements.txt", cwd=clone)
    where = run(python, "-c", "import omniq_nb; print(omniq_nb.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path / "fresh"))

    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    shown = run(python, "notebooks/show.py", "notebooks/01_quickstart.ipynb", cwd=clone, **home)
    assert "accuracy" in shown


@pytest.mark.parametrize("program", ["lab", "notebook", "server"])
def test_the_server_opens_on_the_quickstart(program, tmp_path):
    server = OpensSomewhere(program, tmp_path / "server")
    home = server.environment["HOME"]
    Path(home).mkdir(parents=True)
    run(ROOT / "binder" / "postBuild", cwd=tmp_path, HOME=home)
    server.environment["JUPYTER_CONFIG_DIR"] = f"{home}/.jupyter"
    with server:
        address = f"{server.url}/?token={server.token}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.url.partition("?")[0] == f"{server.url}{QUICKSTART}"


class OpensSomewhere(JupyterServer):
    """A server started by one of Jupyter's programs, as repo2docker may do."""

    def __init__(self, program, folder):
        super().__init__(folder)
        self._program = program

    def command(self):
        return [self._program if word == "lab" else word for word in super().command()]

    def prepare(self):
        super().prepare()
        shutil.copytree(ROOT / "notebooks", self.notebooks / "notebooks")
