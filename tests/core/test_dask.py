"""Workers inside a real Dask cluster, whose nodes are really killed."""

import os
import shutil
import signal
import time

import cloudpickle
import dask
import pytest
from distributed import Client, LocalCluster

from omniq_nb import OmniQ, errors
from tests.core import work
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("dask")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Where nodes write to."""
    with dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}):
        yield


@pytest.fixture(scope="module")
def cluster(scratch):
    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        dashboard_address=":0",
        silence_logs=50,
        # Nobody shall have to wait for the leases of the killed.
        preload="import omniq_nb.core.worker; omniq_nb.core.worker.LEASE = 5.0",
    ) as cluster:
        yield cluster


@pytest.fixture
def oq(tmp_path, cluster):
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        yield oq
        oq.workers.stop(kind="dask", timeout=0)


def start(oq, cluster, n, **options):
    return oq.workers.start(n, kind="dask", address=cluster.scheduler_address, **options)


def running(oq):
    return [info for info in oq.workers.list() if info.state == "running"]


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


def test_an_adaptive_cluster_grows_for_the_workers_and_shrinks_after_them(tmp_path, scratch):
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq,
    ):
        cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=5)
        assert start(oq, cluster, 2)
        until(lambda: len(running(oq)) == 2, "there is a worker more as soon as there is a node")
        assert len({info.pid for info in running(oq)}) == 2
        assert oq.map(work.add, range(10), range(10)).results(timeout=60) == list(range(0, 20, 2))
        oq.workers.stop(kind="dask")
        until(lambda: not cluster.workers, "the nodes are gone")


def test_one_that_was_idle_for_long_enough_ends_and_is_not_replaced(oq, cluster):
    start(oq, cluster, 1, idle_timeout=0.3)
    until(lambda: [info.state for info in oq.workers.list()] == ["stopped"], "it has ended")
    start(oq, cluster, 1, queues="other")
    assert [info.queues for info in running(oq)] == [("other",)]


def test_the_scheduler_keeps_no_secret(oq, cluster):
    start(oq, cluster, 1)
    scheduler = cluster.scheduler
    jobs = [task for key, task in scheduler.tasks.items() if str(key).startswith("omniq-")]
    assert jobs
    known = cloudpickle.dumps([[task.run_spec for task in jobs], scheduler.task_metadata])
    key = oq._async._engine.codec.key
    assert b"omniq" in known
    assert key not in known
    assert repr(key).encode() not in known


def test_what_keeps_a_worker_from_starting_is_told(tmp_path, cluster):
    folder = tmp_path / "gone"
    folder.mkdir()
    with OmniQ(f"sqlite:///{folder}/tasks.db") as oq:
        shutil.rmtree(folder)
        folder.touch()
        with pytest.raises(errors.WorkerLost, match="could not start: StoreUnavailable"):
            start(oq, cluster, 1)


@pytest.mark.parametrize(
    ("words", "key"),
    [({}, "address"), ({"client": "tcp://x"}, "client"), ({"adress": 1}, "adress")],
)
def test_which_cluster_must_be_said(words, key):
    with OmniQ("memory://") as oq, pytest.raises(errors.ConfigError, match=f"^{key}: got"):
        oq.workers.start(1, kind="dask", **words)


def test_stores_that_only_this_process_has_are_refused(cluster):
    with OmniQ("memory://") as oq, pytest.raises(errors.ConfigError, match="for dask workers"):
        start(oq, cluster, 1)
