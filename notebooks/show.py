"""Run a notebook from top to bottom and print what it shows, as text.

``python notebooks/show.py notebooks/01_quickstart.ipynb``
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def show(path: Path) -> None:
    """Execute in the notebook's folder; a cell that fails ends it with that cell's error."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            print("\n" + cell.source.split("\n\n")[0])
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            print(text.rstrip())


if __name__ == "__main__":
    show(Path(sys.argv[1]))
