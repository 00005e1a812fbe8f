"""What a waiter is told is about the task as it stands since the waiter came."""

import asyncio

import pytest

from omniq_nb import AsyncOmniQ
from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim, Settle, State, Task


@pytest.fixture
async def oq():
    async with AsyncOmniQ("memory://") as client:
        yield client


async def settle(oq, to: State) -> Result:
    """Claim the task and settle it, without telling those who wait."""
    stores = oq._engine.stores
    (task,) = await stores.task_queue.claim(["default"], 1, 60.0, "w")
    result = Result(task_id="t", token=task.token, name="f", state=to, attempt=1, error="E: old")
    await stores.result_storage.put([result])
    assert await stores.task_queue.settle([Settle(id="t", token=task.token, to=to)]) == [True]
    return result


async def test_an_answer_that_was_under_way_does_not_reach_who_waits_for_the_next_attempt(
    oq, monkeypatch
):
    engine = oq._engine
    queue = engine.stores.task_queue
    await queue.add([Task(id="t", name="f")])
    old = await settle(oq, State.FAILED)
    asked, go_on, get = asyncio.Event(), asyncio.Event(), queue.get

    async def slow(ids):
        answer = await get(ids)
        asked.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(queue, "get", slow)
    first = asyncio.create_task(engine.outcomes.wait(["t"]))
    await asked.wait()
    monkeypatch.setattr(queue, "get", get)
    await queue.add([Task(id="t", name="f")], revive=True)
    second = await engine.outcomes.wait(["t"])
    go_on.set()
    assert (await first).done.result(timeout=0)["t"] == old
    assert not second.done.done(), "told of the attempt before"
    new = await settle(oq, State.SUCCEEDED)
    assert (await asyncio.wait_for(asyncio.wrap_future(second.done), 30))["t"] == new


async def test_a_worker_s_late_word_does_not_reach_who_waits_for_the_next_attempt(oq):
    engine = oq._engine
    queue = engine.stores.task_queue
    await queue.add([Task(id="t", name="f")])
    since = engine.outcomes.now()
    old = await settle(oq, State.FAILED)
    await queue.add([Task(id="t", name="f")], revive=True)
    waiting = await engine.outcomes.wait(["t"])
    engine.outcomes.publish([old], since)
    await asyncio.sleep(0)
    assert not waiting.done.done(), "told of the attempt before"
    new = await settle(oq, State.SUCCEEDED)
    assert (await asyncio.wait_for(asyncio.wrap_future(waiting.done), 30))["t"] == new
    assert await engine.stores.result_storage.get([Claim("t", new.token)]) == [new]
