"""Live views: bounded, patient with stores, and gone when nobody looks."""

import asyncio
import gc
import logging
import threading
import time
import weakref

import ipywidgets
import pytest

from omniq_nb import OmniQ
from omniq_nb.errors import StoreUnavailable
from omniq_nb.notebook import live


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        yield client


class View:
    """Counts what it is asked for and shown."""

    def __init__(self, values=None):
        self.values = values
        self.asked = 0
        self.shown = []
        self.times = []
        self.troubles = []
        self.news = threading.Event()

    async def gather(self):
        self.asked += 1
        value = (
            self.asked
            if self.values is None
            else self.values[min(self.asked, len(self.values)) - 1]
        )
        if isinstance(value, Exception):
            raise value
        return value

    def show(self, value):
        self.times.append(time.monotonic())
        self.shown.append(value)
        self.news.set()

    def trouble(self, error):
        self.troubles.append(error)


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_a_view_is_shown_at_once_and_then_only_what_is_new(oq):
    view = View(["a", "a", "b", "b", "b"])
    live.watch(oq, view.gather, view.show, 0.2)
    eventually(lambda: view.asked > 6)
    assert view.shown == ["a", "b"]


def test_five_messages_a_second_at_most_whatever_a_view_wishes(oq):
    view = View()
    live.watch(oq, view.gather, view.show, 0.0)
    for _ in range(20):  # looks out of turn are bounded, too
        live.refresh(oq._caller)
    eventually(lambda: len(view.shown) > 7)
    pauses = [b - a for a, b in zip(view.times, view.times[1:], strict=False)]
    assert min(pauses) > live.AT_LEAST * 0.95


def test_asking_never_overlaps_and_a_slow_view_holds_up_no_other(oq):
    inside = most = 0
    asleep = asyncio.Event()

    async def slow():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asleep.wait()
        inside -= 1
        return 1

    quick = View()
    slow_watch = live.watch(oq, slow, lambda value: None, 0.0)
    live.watch(oq, quick.gather, quick.show, 0.0)
    eventually(lambda: len(quick.shown) > 4)
    assert most == inside == 1
    slow_watch.stop()
    oq._caller.loop.loop.call_soon_threadsafe(asleep.set)


def test_a_view_that_asks_for_long_asks_less_often(oq):
    view = View()

    async def gather():
        await asyncio.sleep(0.15)
        return await view.gather()

    watch = live.watch(oq, gather, view.show, 0.0)
    eventually(lambda: len(view.shown) == 2)
    watch.stop()
    assert view.times[1] - view.times[0] > 1.4  # a tenth of the time


def test_it_ends_with_the_view_and_a_thousand_views_leave_nothing(oq):
    kept = View()
    live.watch(oq, kept.gather, kept.show)
    views = [View(["same"]) for _ in range(1000)]
    for view in views:
        live.watch(oq, view.gather, view.show)
    eventually(lambda: live.open_views(oq) == 1001)
    gone = [weakref.ref(view) for view in views]
    del view
    views.clear()
    gc.collect()
    eventually(lambda: live.open_views(oq) == 1)
    eventually(lambda: not any(ref() for ref in gone))
    eventually(lambda: len(live._tickers[oq._caller]._watches) == 1)


def test_it_ends_with_stop_the_widget_and_the_client(oq):
    stopped, closed, left = View(), View(), View()
    widget = ipywidgets.HTML()
    first = live.watch(oq, stopped.gather, stopped.show)
    second = live.watch(oq, closed.gather, closed.show, widget=widget)
    third = live.watch(oq, left.gather, left.show)
    eventually(lambda: live.open_views(oq) == 3)
    first.stop()
    count = len(stopped.shown)
    widget.close()
    eventually(lambda: second.stopped)
    assert first.stopped
    assert not third.stopped
    oq.close()
    eventually(lambda: third.stopped)
    assert len(stopped.shown) == count


def test_a_failing_store_is_told_once_and_asked_again_later(oq, caplog):
    down = StoreUnavailable("the database is away")
    view = View([1, down, down, 2])
    other = View()
    with caplog.at_level(logging.WARNING, logger="omniq_nb.notebook"):
        live.watch(oq, view.gather, view.show, 0.0, trouble=view.trouble)
        live.watch(oq, other.gather, other.show, 0.0)
        eventually(lambda: 2 in view.shown)
    assert view.shown == [1, 2]
    assert view.troubles == [down, None]
    assert caplog.text.count("the database is away") == 1
    assert len(other.shown) > 3


def test_a_defect_ends_its_own_view_only_and_is_logged(oq, caplog):
    broken = View([ZeroDivisionError("a bug of ours")])
    other = View()
    watch = live.watch(oq, broken.gather, broken.show)
    live.watch(oq, other.gather, other.show, 0.0)
    eventually(lambda: watch.stopped)
    eventually(lambda: len(other.shown) > 2)
    assert "a bug of ours" in caplog.text


def test_a_view_may_stop_its_watch_while_it_is_shown_something(oq):
    class Once(View):
        def show(self, value):
            super().show(value)
            self.watch.stop()

    view = Once()
    view.watch = live.watch(oq, view.gather, view.show, 0.0)
    eventually(lambda: live.open_views(oq) == 0)
    assert len(view.shown) <= 1


def test_refresh_shows_the_newest_before_it_returns(oq):
    view = View()
    live.watch(oq, view.gather, view.show, 60.0)
    assert view.news.wait(30)
    asked = view.asked
    live.refresh(oq._caller, timeout=30)
    assert view.shown[-1] == view.asked == asked + 1
