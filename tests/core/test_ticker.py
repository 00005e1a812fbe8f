"""How often the schedules are looked at, and that what is changed is seen."""

import time
from uuid import uuid4

import pytest

from omniq_nb import AsyncOmniQ, OmniQ
from omniq_nb.core.ticker import Ticker
from omniq_nb.testing.servers import Servers
from tests.waiting import until


@pytest.fixture
def on_redis(servers: Servers) -> str:
    return f"{servers('redis').url}?prefix={uuid4().hex}"


def noted(word: str) -> str:
    return word


async def pauses(oq: AsyncOmniQ, number: int) -> list[int]:
    """Seconds, rounded, after so many looks with a ticker of its own."""
    ticker = Ticker(oq._engine)
    return [round(await ticker.tick()) for _ in range(number)]


async def test_a_server_is_asked_less_and_less_often(on_redis: str) -> None:
    async with AsyncOmniQ(on_redis) as oq:
        assert await pauses(oq, 5) == [1, 2, 4, 5, 5]
        await oq.schedules.add("soon", noted, ["a"], at=time.time() + 3.4)
        assert await pauses(oq, 3) == [1, 2, 3], "it is known when it fires"


async def test_a_local_store_is_asked_every_second() -> None:
    async with AsyncOmniQ("memory://") as oq:
        assert await pauses(oq, 4) == [1, 1, 1, 1]


def fired(oq: OmniQ, schedule: str) -> int:
    query = "select count(*) as n from tasks where schedule = ? and state = 'succeeded'"
    return int(oq.sql(query, [schedule])["n"][0])


def test_a_schedule_fires_whoever_made_it(on_redis: str) -> None:
    with OmniQ(on_redis) as oq, OmniQ(on_redis) as another:
        oq.workers.start(1)
        time.sleep(1.5)  # the next look is some seconds away
        oq.schedules.add("ours", noted, ["a"], every=0.1)
        until(lambda: fired(oq, "ours") > 2, "what this client adds is seen")
        oq.schedules.remove("ours")
        another.schedules.add("theirs", noted, ["b"], at=time.time() + 0.1)
        until(lambda: fired(oq, "theirs") == 1, "what others add is found")
