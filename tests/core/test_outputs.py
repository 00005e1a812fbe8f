"""What running tasks print can be read while they run, in order, once, and for little."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from omniq_nb import AsyncOmniQ, OmniQ, current_task
from omniq_nb.core.capture import LIMIT, LOOK_LIMIT, Transcript, remainder
from omniq_nb.core.outputs import Follower, Piece
from omniq_nb.errors import UnknownTask, WaitTimeout
from omniq_nb.models.result import Result
from omniq_nb.models.task import State
from tests.core.clients import backends, url_of

KINDS = ["thread", "async", "process"]
PATIENCE = 60


def speak_until(path: str, *texts: str) -> str:
    """Print one text for each time that the file grew by a byte; end when all are said."""
    for number, text in enumerate(texts, 1):
        wait_for_size(path, number)
        print(text, flush=True)
    wait_for_size(path, len(texts) + 1)
    return "said"


async def speak_until_later(path: str, *texts: str) -> str:
    return await asyncio.to_thread(speak_until, path, *texts)


def wait_for_size(path: str, size: int) -> None:
    end = time.monotonic() + PATIENCE
    while Path(path).stat().st_size < size:
        assert time.monotonic() < end
        time.sleep(0.01)


def cue(path) -> None:
    with path.open("a") as file:
        file.write(".")


@pytest.fixture
def cues(tmp_path):
    path = tmp_path / "cues"
    path.touch()
    return path


@pytest.fixture
def oq():
    with OmniQ("memory://") as client:
        yield client


def outputs(oq) -> list[str]:
    return oq.sql("select data->>'text' as text from events where type = 'output'").text.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_output_arrives_while_the_task_runs(oq, cues, kind):
    oq.workers.start(1, kind)
    handle = oq.submit(speak_until, str(cues), "one", "two \N{SNOWMAN}", "three")
    pieces = handle.follow(PATIENCE)
    seen = []
    for text in ("one", "two \N{SNOWMAN}"):
        cue(cues)
        seen.append(next(pieces))
        assert seen[-1] == text + "\n"
        assert not handle.done()
    assert handle.output(wait=False) == "".join(seen)
    cue(cues)
    cue(cues)
    assert "".join([*seen, *pieces]) == handle.output() == "one\ntwo \N{SNOWMAN}\nthree\n"
    assert handle.output(wait=False) == handle.output()


@backends
def test_who_comes_late_gets_what_was_printed_before(backend, tmp_path, cues):
    with OmniQ(url_of(backend, tmp_path)) as oq:
        oq.workers.start(1)
        handle = oq.submit(speak_until, str(cues), "one", "two")
        cue(cues)
        assert next(handle.follow(PATIENCE)) == "one\n"
        late = handle.follow(PATIENCE)
        assert next(late) == "one\n"
        cue(cues)
        assert next(late) == "two\n"
        cue(cues)
        assert list(late) == []


async def test_the_awaitable_face_follows_too(cues):
    async with AsyncOmniQ("memory://") as oq:
        await oq.workers.start(1, "async")
        handle = await oq.submit(speak_until_later, str(cues), "one", "two")
        assert await handle.output(wait=False) == ""
        cue(cues)
        seen = []
        async for text in handle.follow(PATIENCE):
            seen.append(text)
            cue(cues)
        assert "".join(seen) == await handle.output() == "one\ntwo\n"


WORKER = """
    import sys
    from omniq_nb import OmniQ
    with OmniQ(sys.argv[1]) as oq:
        oq.workers.start(1)
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("backend", ["sqlite", "file"])
def test_output_of_a_worker_elsewhere_arrives_while_the_task_runs(backend, tmp_path, cues):
    url = url_of(backend, tmp_path)
    with OmniQ(url) as oq:
        handle = oq.submit(speak_until, str(cues), "one", "two")
        pieces = handle.follow(PATIENCE)
        worker = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            cue(cues)
            assert next(pieces) == "one\n"
            assert handle.output(wait=False) == "one\n"
            cue(cues)
            assert next(pieces) == "two\n"
            cue(cues)
            assert list(pieces) == []
        finally:
            worker.stdin.close()
            worker.wait(PATIENCE)


def test_short_tasks_leave_no_output_events(oq):
    oq.workers.start(4)
    oq.map(print, range(500)).wait(PATIENCE)
    assert outputs(oq) == []


def test_a_flood_is_bounded_and_its_end_complete(oq, cues):
    line = "x" * 99

    def flood(path):
        for _ in range(5 * LOOK_LIMIT // 100):
            print(line)
        print("loud enough")
        wait_for_size(path, 1)
        print("the end")

    oq.workers.start(1)
    handle = oq.submit(flood, str(cues))
    pieces = handle.follow(PATIENCE)
    first = next(pieces)
    assert "characters cut ...]" in first
    assert first.endswith("loud enough\n")
    assert all(len(text) <= LOOK_LIMIT for text in outputs(oq))
    cue(cues)
    assert "".join(pieces) == "the end\n"
    assert handle.output().count(line) == 5 * LOOK_LIMIT // 100


def test_a_retried_attempt_starts_anew(oq, cues):
    def twice(path):
        attempt = current_task().attempt
        print(f"attempt {attempt}")
        wait_for_size(path, attempt)
        if attempt == 1:
            raise ValueError("not yet")

    oq.workers.start(1)
    handle = oq.task(retries=1, retry_delay=0.01)(twice).submit(str(cues))
    pieces = handle.follow(PATIENCE)
    assert next(pieces) == "attempt 1\n"
    cue(cues)
    assert next(pieces) == "attempt 2\n"
    cue(cues)
    assert list(pieces) == []


def test_what_came_of_it_is_not_raised(oq):
    oq.workers.start(1)
    handle = oq.submit(lambda: print("so far") or 1 / 0)
    assert "".join(handle.follow(PATIENCE)) == "so far\n"


def test_following_ends_after_the_timeout(oq):
    handle = oq.submit(print)
    with pytest.raises(WaitTimeout, match=r"not done after 0\.05 s; the work goes on"):
        list(handle.follow(0.05))
    assert handle.output(wait=False) == ""


def test_an_unknown_task_cannot_be_followed(oq):
    with pytest.raises(UnknownTask, match="no task 'nobody' is known"):
        list(oq.handle("nobody").follow(PATIENCE))


def test_nothing_is_left_of_those_who_stopped_following(oq, cues):
    oq.workers.start(1)
    handle = oq.submit(speak_until, str(cues), "one")
    pieces = handle.follow(PATIENCE)
    cue(cues)
    next(pieces)
    pieces.close()
    assert not oq._caller.engine.outputs._followed
    assert not oq._caller.engine.outcomes._waiting
    cue(cues)
    assert handle.result(PATIENCE) == "said"


class TestTranscript:
    @pytest.mark.parametrize("piece", [1, 1000, LOOK_LIMIT - 1, 3 * LIMIT])
    def test_looks_give_each_character_once_or_say_how_many_are_missing(self, piece):
        text = "".join(f"{number:08d}" for number in range(LIMIT))
        transcript, position = Transcript(), 0
        for start in range(0, len(text), piece):
            transcript.write(text[start : start + piece])
            if start // piece % 3 == 0:
                look = transcript.since(position)
                begin = position + look.skipped
                assert look.text == text[begin : look.position]
                position = look.position
                assert position == min(start + piece, len(text))

    def test_looking_at_nothing_changes_nothing(self):
        transcript = Transcript()
        assert transcript.since(0) == ("", 0, 0)
        assert transcript.text() is None

    def test_looks_while_others_write_lose_nothing(self):
        transcript = Transcript()
        writer = threading.Thread(target=lambda: [transcript.write("x") for _ in range(100_000)])
        writer.start()
        position = seen = 0
        while writer.is_alive() or position < 100_000:
            look = transcript.since(position)
            seen += look.skipped + len(look.text)
            position = look.position
        assert seen == position == 100_000


class TestFollower:
    def test_pieces_that_come_twice_or_overlap_are_read_once(self):
        follower = Follower()
        pieces = [Piece(1, 0, "ab"), Piece(1, 0, "ab"), Piece(1, 1, "bcd"), Piece(1, 2, "cd")]
        assert [follower.take(piece) for piece in pieces] == ["ab", "", "cd", ""]

    def test_missing_text_is_marked(self):
        follower = Follower()
        assert follower.take(Piece(1, 3, "d")) == "\n[... 3 characters cut ...]\nd"

    def test_an_older_attempt_is_over(self):
        follower = Follower()
        assert follower.take(Piece(2, 0, "new")) == "new"
        assert follower.take(Piece(1, 3, "old")) == ""

    @pytest.mark.parametrize("seen", [0, 5, LIMIT // 2 - 1, LIMIT // 2, LIMIT, LIMIT + 10_000])
    def test_the_result_gives_the_rest_however_it_was_shortened(self, seen):
        text = "".join(f"{number:08d}" for number in range(LIMIT // 4))
        transcript = Transcript()
        transcript.write(text)
        rest = remainder(transcript.text(), seen)
        if seen < LIMIT // 2:
            assert rest == transcript.text()[seen:]
        else:
            head, mark, tail = rest.split("\n") if "\n" in rest else ("", "", rest)
            assert head == ""
            missing = int(mark.split()[1].replace(",", "")) if mark else 0
            assert missing + len(tail) == len(text) - seen
            assert text.endswith(tail)

    def test_a_result_of_an_attempt_that_nobody_saw_is_new(self):
        follower = Follower()
        follower.take(Piece(1, 0, "first attempt"))
        result = Result(task_id="a", token=2, name="a", state=State.SUCCEEDED, output="second")
        assert follower.finish(result) == "second"
