"""Shows the pictures that the browser suite makes, where they are.

``<!-- picture NAME: what it shows -->`` in a page stands for `docs/pictures/NAME-light.png` and
`NAME-dark.png`. `bash tests/run.sh` makes them, and git does not keep them: without them the page
says where they come from, and the site is built all the same.

Not here: making them (`tests/browser/test_pictures.py`).
"""

import re
from typing import Any

from mkdocs.structure.files import Files

MARK = re.compile(r"^<!-- picture ([\w-]+):\s+(.+?) -->$", re.M | re.S)

MISSING = "*Here is a picture as soon as the tests have run: `bash tests/run.sh` makes it.*"


def on_page_markdown(markdown: str, *, files: Files, **_: Any) -> str:
    """Put pictures in the place of their marks. MkDocs calls this with each page."""

    def shown(mark: re.Match[str]) -> str:
        name, said = mark[1], " ".join(mark[2].split())
        paths = {theme: f"pictures/{name}-{theme}.png" for theme in ("light", "dark")}
        if not all(files.get_file_from_path(path) for path in paths.values()):
            return MISSING
        return "\n".join(f"![{said}]({path}#only-{theme})" for theme, path in paths.items())

    return MARK.sub(shown, markdown)
