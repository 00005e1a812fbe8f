"""The documentation site builds, needs no network, and says which backends there are."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest

from omniq_nb import StorageBackendConfig
from omniq_nb.config import COMPONENTS
from omniq_nb.config.options import BACKENDS
from omniq_nb.storage.factory import StorageBackendFactory
from tests.browser.test_pictures import NAMES

pytestmark = pytest.mark.xdist_group("site")

ROOT = Path(__file__).parent.parent


class Loads(HTMLParser):
    """Collects what a page loads by itself: everything but what its links lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        if tag != "a":
            named = {"src", "href", "srcset", "data", "poster"}
            self.addresses += [value for name, value in attrs if name in named and value]


SHOWN = [f"{name}-{theme}.png" for name in NAMES[1:] for theme in ("light", "dark")]
"""Pictures that are there for light and for dark pages. Of the first name there is only one."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, of a copy of the pages: the browser suite may be making the real pictures."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("pictures"))
    (folder / "docs" / "pictures").mkdir()
    for name in (f"{NAMES[0]}-light.png", *SHOWN):
        (folder / "docs" / "pictures" / name).write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", "built"],
        cwd=folder,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "built"


def test_every_page_is_built(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file()
    assert not (site / "hooks").exists()


def test_pages_show_the_pictures_that_there_are(site):
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
    marked = {name: re.findall(r"<!-- picture ([\w-]+):", text) for name, text in pages.items()}
    assert sorted(chain.from_iterable(marked.values())) == sorted(NAMES)
    shown = []
    for name, marks in marked.items():
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        found = re.findall(r'<img alt="([^"]+)" src="pictures/([\w-]+\.png)', html)
        assert all(alt for alt, _ in found)
        shown += [picture for _, picture in found]
        assert html.count("as soon as the tests have run") == len(marks) - len(found) / 2
    assert sorted(shown) == sorted(SHOWN)


def test_readers_need_no_network(site):
    for page in site.glob("*.html"):
        outside = [a for a in Loads(page).addresses if re.match(r"(https?:)?//", a)]
        assert not outside, page.name
    for style in site.glob("**/*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_backend_page_tells_of_every_backend():
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [\w ]+ \|", page, re.M)
    assert [kind for kind, _ in rows] == list(BACKENDS)
    assert StorageBackendFactory.get_supported_backends()["task_queue"] == list(BACKENDS)
    for kind, url in rows:
        assert StorageBackendConfig.from_url(url).resolved_type().backend_type == kind


def test_every_component_has_the_same_backends():
    supported = StorageBackendFactory.get_supported_backends()
    assert all(supported[component] == supported["task_queue"] for component in COMPONENTS)
