"""A Jupyter server with JupyterLab, Notebook 7 and Voila, and nothing of the developer's own."""

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat

from omniq_nb.testing.servers import Server

ROOT = Path(__file__).parent.parent.parent

LAB_SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "apputils-extension/themes": {"adaptive-theme": True},  # as light or dark as the browser
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page
}


class JupyterServer(Server):
    """`jupyter lab` on the loopback address, with a home and settings of its own.

    Parameters
    ----------
    folder : path
        For its home, its settings, and in `notebooks` what it serves.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.token = secrets.token_urlsafe()
        self.notebooks = folder / "notebooks"
        home = folder / "home"
        self.environment = {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_STATE_HOME": str(home / ".state"),
            "IPYTHONDIR": str(home / ".ipython"),
            "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "lab" / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "lab" / "workspaces"),
            "JUPYTER_TOKEN": self.token,  # not among the words that every process can read
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    @property
    def url(self) -> str:
        """Where browsers find it."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Give the words that start it."""
        return [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.notebooks}"),
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.news_url=",
            "--VoilaConfiguration.show_tracebacks=True",
        ]

    def prepare(self) -> None:
        """Make the folders and the settings."""
        self.notebooks.mkdir()
        for name, settings in LAB_SETTINGS.items():
            plugin = f"@jupyterlab/{name}.jupyterlab-settings"
            path = Path(self.environment["JUPYTERLAB_SETTINGS_DIR"], plugin)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings), encoding="utf-8")

    def answers(self) -> bool:
        """Whether it serves: it accepts connections some time before."""
        try:
            self.ask("/api/status")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def ask(self, path: str, method: str = "GET") -> Any:
        """Call the server's API."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    # ---------------------------------------------------------------- what it serves

    def add(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells; give its path as the server knows it."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        path = self.notebooks / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return f"{name}.ipynb"

    def kernel_state(self, path: str) -> str:
        """Tell what the kernel of a notebook does: `idle`, `busy`...; `none`: no page has it."""
        for session in self.ask("/api/sessions"):
            kernel = session["kernel"]
            if session["path"] == path and kernel["connections"]:
                return str(kernel["execution_state"])
        return "none"

    def end_kernels(self) -> None:
        """End what a test left running: each test begins with a kernel of its own."""
        for kernel in self.ask("/api/kernels"):
            self.ask(f"/api/kernels/{kernel['id']}", "DELETE")
