"""ray, ipyparallel and distributed in one machine: submit and gather no-ops, one round trip."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import percentiles, report, seconds

which = sys.argv[2]  # after the folder, which is not needed
N = 10_000
TRIPS = 300


def nothing(i: int) -> int:
    return i


def figures(
    submit: Callable[[int], object], value: Callable[[object], object]
) -> dict[str, object]:
    value(submit(0))

    def gather() -> None:
        for handle in [submit(i) for i in range(N)]:
            value(handle)

    trips = []
    for i in range(TRIPS):
        trips.append(seconds(lambda i=i: value(submit(i))))
        time.sleep(0.001)
    return {"rate": N / seconds(gather), "trip": percentiles(trips)}


if which == "ray":
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(nothing)
    result = figures(remote.remote, ray.get)
    handles = seconds(lambda: ray.get([remote.remote(i) for i in range(N)]))
    result["rate"] = max(result["rate"], N / handles)
    ray.shutdown()
elif which == "ipyparallel":
    import ipyparallel

    N = 2_000
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        view = client.load_balanced_view()
        result = figures(lambda i: view.apply_async(nothing, i), lambda handle: handle.get())
elif which == "distributed":
    from distributed import Client

    N = 3_000
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as client:
        result = figures(
            lambda i: client.submit(nothing, i, pure=False), lambda handle: handle.result()
        )
        rate = N / seconds(lambda: client.gather(client.map(nothing, range(N), pure=False)))
        result["rate"] = max(result["rate"], rate)
else:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        result = figures(lambda i: pool.submit(nothing, i), lambda handle: handle.result())

report(**result)
