"""What all tests share: an environment of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from omniq_nb.testing.servers import Servers

hypothesis.settings.register_profile("omniq_nb", deadline=None, database=None)
hypothesis.settings.load_profile("omniq_nb")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "heavy: takes seconds; once for each family is enough")
    config.addinivalue_line("markers", "browser: opens notebooks in Chromium")


@pytest.fixture(autouse=True)
def no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Hide the developer's OMNIQ_ variables and configuration folder from every test."""
    for name in [name for name in os.environ if name.startswith("OMNIQ_")]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    yield folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers that this process's tests share. Each starts when it is first asked for."""
    with Servers(lambda kind: tmp_path_factory.mktemp(kind)) as running:
        yield running
