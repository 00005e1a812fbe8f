"""Workers inside a real Dask cluster, whose nodes are really killed."""

import os
import signal
import time

import dask
import pytest
from distributed import Client, LocalCluster

from omniq_nb import OmniQ
from tests.core import work
from tests.waiting import until

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dask"))
    # Nobody shall have to wait for the leases of the killed.
    preload = "import omniq_nb.core.worker; omniq_nb.core.worker.LEASE = 5.0"
    with (
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            dashboard_address=None,
            silence_logs=50,
            preload=preload,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def oq(tmp_path, cluster):
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        yield oq
        oq.workers.stop(kind="dask", timeout=0)


def start(oq, cluster, n, **options):
    return oq.workers.start(n, kind="dask", address=cluster.scheduler_address, **options)


def nodes(cluster):
    return {node.pid: node for node in cluster.workers.values()}


def test_workers_run_on_the_nodes_and_any_client_scales_and_stops_them(oq, tmp_path, cluster):
    infos = start(oq, cluster, 4)
    assert {info.kind for info in infos} == {"dask"}
    assert {info.pid for info in infos} == set(nodes(cluster))
    assert os.getpid() not in {info.pid for info in infos}
    assert oq.map(work.add, [1, 2], [3, 4]).results(timeout=60) == [4, 6]
    assert oq.submit(lambda: "by value").result(timeout=60) == "by value"

    again = start(oq, cluster, 4)
    assert {info.id for info in again} == {info.id for info in infos}
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as other, Client(cluster) as client:
        (left,) = other.workers.start(1, kind="dask", client=client)
        assert left.id in {info.id for info in infos}
        ended = {info.id for info in infos} - {left.id}
        until(
            lambda: ended == {i.id for i in other.workers.list() if i.state == "stopped"}, "ended"
        )
        assert other.submit(work.add, 1, 2).result(timeout=60) == 3
        other.workers.stop(kind="dask")
        assert {info.state for info in other.workers.list()} == {"stopped"}


def test_workers_of_a_killed_node_are_replaced_and_no_task_is_lost(oq, cluster):
    infos = start(oq, cluster, 2)

    def slowly(x):
        time.sleep(0.1)
        return x

    sweep = oq.map(slowly, range(40))
    until(lambda: sweep.counts().get("succeeded", 0) >= 4, "some are done")
    os.kill(infos[0].pid, signal.SIGKILL)
    ids = {info.id for info in infos}
    until(
        lambda: [i for i in oq.workers.list() if i.state == "running" and i.id not in ids],
        "another worker has taken its place",
    )
    until(lambda: len(start(oq, cluster, 2)) == 2, "there are two again")
    assert sweep.results(timeout=90) == list(range(40))
