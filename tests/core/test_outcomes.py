"""What a waiter is told is about the task as it stands since the waiter came."""

import asyncio

import pytest

from omniq_nb import AsyncOmniQ
from omniq_nb.core import outcomes
from omniq_nb.errors import StoreUnavailable
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


class TestMany:
    """Who waits for many tasks asks about some at a time."""

    N = 10_000

    @pytest.fixture
    async def asked(self, oq, monkeypatch):
        """How many tasks each question was about, with the first one, about all, answered."""
        monkeypatch.setattr(outcomes, "POLL_LAST", 0.01)
        queue = oq._engine.stores.task_queue
        await queue.add([Task(id=f"t{i}", name="f") for i in range(self.N)])
        sizes, get = [], queue.get

        async def counted(ids):
            sizes.append(len(ids))
            return await get(ids)

        monkeypatch.setattr(queue, "get", counted)
        return sizes

    async def test_their_end_is_heard_of_in_few_questions(self, oq, asked):
        queue = oq._engine.stores.task_queue
        waiting = await oq._engine.outcomes.wait([f"t{i}" for i in range(self.N)])
        tasks = await queue.claim(["default"], self.N, 60.0, "w")
        while len(asked) < 5:  # in vain
            await asyncio.sleep(0.001)
        asked.clear()
        await queue.settle([Settle(id=t.id, token=t.token, to=State.SUCCEEDED) for t in tasks])
        await asyncio.wait_for(asyncio.wrap_future(waiting.done), 30)
        assert max(asked) < self.N / 2
        assert sum(asked) < 3 * self.N

    async def test_one_that_ends_before_all_others_is_heard_of(self, oq, asked):
        heard = asyncio.Event()
        ids = [f"t{i}" for i in range(self.N)]
        waiting = await oq._engine.outcomes.wait(ids, lambda result: heard.set())
        asked.clear()
        assert await oq._engine.stores.task_queue.transition([ids[-1]], State.CANCELLED)
        await asyncio.wait_for(heard.wait(), 30)
        assert set(waiting.results) == {ids[-1]}
        assert max(asked) < self.N / 2
        oq._engine.outcomes.forget(waiting)


async def test_who_hears_of_an_end_before_the_worker_does_finds_its_events(oq, monkeypatch):
    queue = oq._engine.stores.task_queue
    settle = queue.settle

    async def slow(*words):
        settled = await settle(*words)
        await asyncio.sleep(0.3)  # others can see it by now
        return settled

    monkeypatch.setattr(queue, "settle", slow)
    await oq.workers.start(1)
    handle = await oq.submit(abs, -1)
    while await handle.status() is not State.SUCCEEDED:
        await asyncio.sleep(0.01)
    history = await oq.sql("select type from events where task_id = ?", [handle.id])
    assert {"started", "succeeded"} <= set(history["type"])


async def test_a_queue_that_cannot_be_asked_for_a_while_is_asked_again(oq, monkeypatch):
    monkeypatch.setattr(outcomes, "TROUBLE", 0.01)
    queue = oq._engine.stores.task_queue
    get, answers = queue.get, iter([None, StoreUnavailable("away"), StoreUnavailable("away")])

    async def away(ids):
        if error := next(answers, None):
            raise error
        return await get(ids)

    await queue.add([Task(id="t", name="f")])
    monkeypatch.setattr(queue, "get", away)
    waiting = await oq._engine.outcomes.wait(["t"])
    result = await settle(oq, State.SUCCEEDED)
    assert (await asyncio.wait_for(asyncio.wrap_future(waiting.done), 30))["t"] == result
    assert list(answers) == []


async def test_who_comes_to_wait_asks_once(oq, monkeypatch):
    monkeypatch.setattr(outcomes, "POLL_FIRST", 3600.0)
    queue = oq._engine.stores.task_queue
    get, asked = queue.get, []

    async def counted(ids):
        asked.append(ids)
        return await get(ids)

    monkeypatch.setattr(queue, "get", counted)
    await oq.workers.start(1)
    assert await (await oq.submit(abs, -1)).result() == 1
    assert len(asked) == 1
