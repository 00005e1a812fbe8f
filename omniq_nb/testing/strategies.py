"""Hypothesis strategies: small worlds in which commands meet each other often."""

from hypothesis import strategies as st

from omniq_nb.models.task import Settle, State, Task
from omniq_nb.testing.samples import NEVER, NOON, OVER, task

IDS = tuple("abcdefgh")
QUEUES = ("one", "two")
LONG = 600.0

ids = st.sampled_from(IDS)
id_lists = st.lists(ids, min_size=1, max_size=3, unique=True)
queue_lists = st.sampled_from([("one",), ("two", "one"), ("one", "two", "unknown")])
leases = st.sampled_from([LONG, OVER])
limits = st.integers(1, 4)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Make a task that is due now or never, and is expired, will be, or cannot expire."""
    return task(
        draw(ids),
        queue=draw(st.sampled_from(QUEUES)),
        priority=draw(st.integers(-1, 1)),
        available_at=draw(st.sampled_from([0.0, NOON, NOON + 1, NEVER])),
        expires_at=draw(st.sampled_from([None, None, NEVER, NOON])),
        depends_on=tuple(draw(st.lists(ids, max_size=2, unique=True))),
        call=draw(st.binary(max_size=4)),
    )


@st.composite
def endings(draw: st.DrawFn) -> Settle:
    """Make an outcome of a claim that is yet to be filled in."""
    to = draw(st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED]))
    return Settle(
        id="",
        token=0,
        to=to,
        released=to is State.QUEUED and draw(st.booleans()),
        available_at=draw(st.sampled_from([NOON, NEVER])),
        started_at=draw(st.sampled_from([None, NOON])),
        finished_at=draw(st.sampled_from([None, NOON, NOON + 10])),
        error=draw(st.sampled_from([None, "ValueError: no"])),
    )
