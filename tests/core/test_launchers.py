"""Launchers of other packages, found by their entry point."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from omniq_nb import OmniQ, errors
from tests.waiting import until

ENGINE = '''
from omniq_nb.core.launch.base import Launcher, refuse_options
from omniq_nb.models.task import WorkerInfo


class ClusterLauncher(Launcher):
    """An engine without a cluster: it remembers what it was asked."""

    kind = "cluster"
    ASKED = []

    def __init__(self, engine, options):
        options = dict(options)
        self.partition = options.pop("partition", "any")
        refuse_options(self.kind, options)
        self.workers = []

    async def find(self):
        return self.workers

    async def scale(self, order, n):
        self.ASKED.append((order.queues, order.concurrency, n, self.partition))
        self.workers = [(order, WorkerInfo(id=str(i), kind=self.kind)) for i in range(n)]
        return [info for _, info in self.workers]

    async def stop(self, timeout):
        self.ASKED.append(("stop", timeout))
        self.workers = []

    async def close(self):
        self.ASKED.append("close")
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package that adds a kind of workers."""

    def install(kind, launcher, code):
        (tmp_path / "their_package.py").write_text(code)
        metadata = tmp_path / "their_package-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: their_package\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(
            f"[omniq_nb.launchers]\n{kind} = their_package:{launcher}\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "their_package", raising=False)
        return import_module("their_package")

    return install


@pytest.fixture
def asked(install):
    """What the launcher of an installed package is asked."""
    return install("cluster", "ClusterLauncher", ENGINE).ClusterLauncher.ASKED


def test_the_one_of_the_documentation_works(install, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "workers.md").read_text()
    (code,) = re.findall(
        r"^```python\n(import asyncio\n.*?class JobLauncher.*?)^```", page, re.M | re.S
    )
    install("job", "JobLauncher", code)
    file = str(tmp_path / "job.yaml")
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        two = oq.workers.start(2, kind="job", config_file=file)
        assert {info.kind for info in two} == {"process"}
        assert oq.submit(pow, 2, 10).result(timeout=60) == 1024
        (one,) = oq.workers.start(1, kind="job", config_file=file)
        assert one.id in {info.id for info in two}
        oq.workers.stop(kind="job", timeout=60)
        until(lambda: {info.state for info in oq.workers.list()} == {"stopped"}, "both have ended")


def test_start_scale_and_stop_workers_like_ours(asked):
    with OmniQ("memory://") as oq:
        infos = oq.workers.start(
            3, kind="cluster", queues=["a", "b"], concurrency=2, partition="long"
        )
        assert [info.id for info in infos] == ["0", "1", "2"]
        oq.workers.scale(2, kind="cluster")
        oq.workers.stop()
        oq.workers.stop(kind="cluster", timeout=5)
    assert asked[:2] == [(("a", "b"), 2, 3, "long"), (("a", "b"), 2, 2, "long")]
    stop, seconds = asked[2]
    assert stop == "stop"
    assert 4 < seconds <= 5
    assert asked[3:] == ["close"]


def test_refuse_options_that_they_do_not_know(asked):
    with (
        OmniQ("memory://") as oq,
        pytest.raises(errors.ConfigError, match=r"partitions: got 'long'.*cluster workers"),
    ):
        oq.workers.start(1, kind="cluster", partitions="long")


def test_are_suggested_like_ours(asked):
    with (
        OmniQ("memory://") as oq,
        pytest.raises(errors.ConfigError, match="Did you mean 'cluster'"),
    ):
        oq.workers.start(1, kind="clustr")
