"""What all tests share: an environment of their own."""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from omniq_nb.testing.servers import Servers

hypothesis.settings.register_profile("omniq_nb", deadline=None, database=None)
hypothesis.settings.load_profile("omniq_nb")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "heavy: takes seconds; once for each family is enough")
    config.addinivalue_line("markers", "browser: opens notebooks in Chromium")
    config.addinivalue_line("markers", "xdist_group(name): see xdist, which may be off")
    config.addinivalue_line("markers", "long: takes longest, so it does not begin last")
    # For notebooks, which have no fixtures: their background workers are registered here.
    state = tempfile.TemporaryDirectory()
    config.add_cleanup(state.cleanup)
    os.environ["XDG_STATE_HOME"] = state.name
    os.environ["XDG_CACHE_HOME"] = state.name


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the cells of a notebook in one process: they are one kernel's. Begin with long tests.

    Groups begin even earlier: xdist sees to it.
    """
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


MARK = "TESTS_OF_OMNIQ"
"""The environment variable by which whatever a test starts is known, however far down."""

PATIENCE = 30.0


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No process, zombie, listening socket or temporary file outlives the tests that made it."""
    os.environ[MARK] = mark = uuid.uuid4().hex
    tempfile.tempdir = os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))
    yield
    deadline = time.monotonic() + PATIENCE
    while left := leftovers(mark):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def leftovers(mark: str) -> list[str]:
    """What the tests of this process have left behind, in words."""
    ours = psutil.Process()
    left = [f"zombie {one.pid}" for one in ours.children() if one.status() == psutil.STATUS_ZOMBIE]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told = process != ours and process.environ().get(MARK) == mark
            if told and not is_pythons(process, ours):
                left.append(f"process {process.pid}: {process.cmdline()}")
    listening = ours.net_connections("inet")
    left += [str(one.laddr) for one in listening if one.status == psutil.CONN_LISTEN]
    files = [
        file for file in Path(tempfile.gettempdir()).iterdir() if not file.name.startswith("pymp-")
    ]
    return left + [f"file {file}" for file in files]


def is_pythons(process: psutil.Process, ours: psutil.Process) -> bool:
    """Whether it serves multiprocessing, as a folder "pymp-..." does, and ends with its user."""
    words = " ".join(process.cmdline())
    if "multiprocessing.forkserver" in words:
        return process.ppid() == ours.pid  # its own children look alike
    return "multiprocessing.resource_tracker" in words


@pytest.fixture(autouse=True)
def no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Hide the developer's OMNIQ_ variables, keys and background workers from every test."""
    for name in [name for name in os.environ if name.startswith("OMNIQ_")]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    yield folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers that this process's tests share. Each starts when it is first asked for."""
    with Servers(lambda kind: tmp_path_factory.mktemp(kind)) as running:
        yield running
