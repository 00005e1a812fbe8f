"""The documentation site builds, needs no network, and says which backends there are."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from omniq_nb import StorageBackendConfig
from omniq_nb.config import COMPONENTS
from omniq_nb.config.options import BACKENDS
from omniq_nb.storage.factory import StorageBackendFactory

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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file()


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
