"""Any component may be anywhere: the quickstart's sweep on mixtures of backends.

`mixtures` draws any of the 1,296 ways to give four components six backends. Twelve of them, in
which each component meets each backend twice, run always.
"""

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from omniq_nb import OmniQ, OmniQConfig, State, current_task
from omniq_nb.testing.servers import Servers

BACKENDS = ("memory", "sqlite", "file", "redis", "postgres", "nats")

Place = Callable[[str], str]
"""Gives the URL of an empty place on a backend."""


class Mixture(NamedTuple):
    """The backend of each component."""

    task_queue: str
    result_storage: str
    event_storage: str
    schedule_storage: str

    def __str__(self) -> str:
        return "-".join(self)


mixtures = st.builds(Mixture, *[st.sampled_from(BACKENDS)] * 4)


def always() -> list[Mixture]:
    """Twelve: each component has each backend twice, and no two components the same one."""
    numbers = range(len(BACKENDS))
    return [
        Mixture(*(BACKENDS[(first + step) % len(BACKENDS)] for step in steps))
        for steps in ((0, 1, 2, 3), (0, 5, 3, 1))
        for first in numbers
    ]


def test_the_mixtures_that_run_always_differ_and_cover_each_backend_twice():
    assert len(set(always())) == 12
    for component in Mixture._fields:
        of = Counter(getattr(mixture, component) for mixture in always())
        assert of == dict.fromkeys(BACKENDS, 2), component


@pytest.fixture(scope="session")
def place(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Each server is the one that all tests share."""
    folder, numbers = tmp_path_factory.mktemp("mixtures"), count()

    def url(backend: str) -> str:
        name = f"mixed{next(numbers)}x{folder.name}"
        match backend:
            case "memory":
                return f"memory://{name}"
            case "sqlite":
                return f"sqlite:///{folder / name}.db"
            case "file":
                return f"file://{folder / name}"
        option = {"redis": "prefix", "postgres": "schema", "nats": "stream"}[backend]
        return f"{servers(backend).url}?{option}={name}"

    return url


def fit(lr: float, depth: int) -> dict[str, float]:
    task = current_task()
    if task and task.attempt == 1 and (lr, depth) == (0.1, 4):
        raise ConnectionError("the data server hung up")
    print(f"fitting {lr} {depth}")
    if depth < 0:
        raise ValueError("a typing mistake")
    return {"score": depth * (1 - lr)}


def sweep(mixture: Mixture, place: Place) -> None:
    """What the quickstart does, and what it says came of it."""
    # Components of one backend share one place, as `like` has it.
    places = {backend: place(backend) for backend in dict.fromkeys(mixture)}
    config = OmniQConfig(
        **{
            f"{component}_backend": places[backend]
            for component, backend in zip(mixture._fields, mixture, strict=True)
        }
    )
    depths = [2, 4, 8, -1]
    with OmniQ(config=config) as oq:
        task = oq.task(retries=2, retry_delay=0.01, retry_on=[ConnectionError], timeout=60)(fit)
        grid = oq.map(task, lr=[0.1, 0.2], depth=depths, name="sweep")
        assert grid.counts() == {State.QUEUED: 8}
        oq.workers.start(2)
        values = grid.results(timeout=60, errors="return")
        scores = [value["score"] for value in values if isinstance(value, dict)]
        assert scores == [depth * (1 - lr) for lr in (0.1, 0.2) for depth in depths[:3]]
        assert [type(value) for value in (values[3], values[7])] == [ValueError, ValueError]
        assert grid[0].output() == "fitting 0.1 2\n"

        frame = grid.df()
        assert frame["state"].tolist() == (["succeeded"] * 3 + ["failed"]) * 2
        assert frame["attempt"].tolist() == [1, 2, 1, 1, 1, 1, 1, 1]
        best = oq.sql("""
            select results.lr, results.depth, results.value.score as score, tasks.attempt
            from results join tasks using (task_id)
            where results.batch = 'sweep' and results.state = 'succeeded'
            order by score desc limit 1
        """)
        assert best.loc[0].tolist() == [0.1, 8, 7.2, 1]
        types = oq.sql("select type, count(*) as n from events where batch = 'sweep' group by all")
        happened = dict(zip(types["type"], types["n"], strict=True))
        assert happened["enqueued"] == 8
        assert (happened["succeeded"], happened["failed"], happened["retried"]) == (6, 2, 1)

        again = oq.map(task, lr=[0.1, 0.2], depth=depths, name="sweep")
        again.wait(timeout=60)  # only what failed runs again
        assert again.counts() == {State.SUCCEEDED: 6, State.FAILED: 2}
        tokens = oq.sql("select token from tasks where batch = 'sweep' order by position")["token"]
        assert tokens.tolist() == [1, 2, 1, 2, 1, 1, 1, 2]

        oq.schedules.add("hourly", task, [0.5, 4], every="1h")
        assert oq.schedules.trigger("hourly").result(timeout=60) == {"score": 2.0}
        assert oq.sql("select id, state from schedules").loc[0].tolist() == ["hourly", "active"]


@pytest.mark.parametrize("mixture", always(), ids=str)
def test_the_quickstarts_sweep(mixture: Mixture, place: Place) -> None:
    sweep(mixture, place)


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(mixture=mixtures)
def test_any_mixture_runs_it(mixture: Mixture, place: Place) -> None:
    sweep(mixture, place)
