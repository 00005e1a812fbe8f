"""Where text goes that is printed or logged while executors run."""

import contextlib
import contextvars
import io
import logging
import sys
import threading

import pytest

from omniq_nb.core.capture import LIMIT, TRANSCRIPT, Splitter, Transcript, capturing, renew


def captured(function, *args) -> str | None:
    """What a task that calls it would have in its transcript."""
    transcript = Transcript()

    def enter():
        TRANSCRIPT.set(transcript)
        function(*args)

    contextvars.copy_context().run(enter)
    return transcript.text()


@pytest.fixture
def console(monkeypatch):
    """Two notebook cells, to be called for at the beginning of the test itself.

    Pytest puts its own streams and logging handlers in place after the fixtures have run.
    """

    def begin() -> tuple[io.StringIO, io.StringIO]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(logging.root, "handlers", [])
        return out, err

    return begin


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.capture")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


class TestStreams:
    def test_a_tasks_text_goes_to_its_transcript_in_order(self, console):
        out, err = console()

        def speak():
            print("one")
            print("two", file=sys.stderr)
            sys.stdout.writelines(["th", "ree\n"])
            sys.stdout.buffer.write(b"four\n")
            sys.stdout.flush()

        with capturing():
            assert captured(speak) == "one\ntwo\nthree\nfour\n"
        assert [out.getvalue(), err.getvalue()] == ["", ""]

    def test_all_other_text_passes_through(self, console):
        out, err = console()
        with capturing():
            print("cell")
            print("error", file=sys.stderr)
        assert [out.getvalue(), err.getvalue()] == ["cell\n", "error\n"]

    def test_the_streams_are_as_before_when_the_last_user_leaves(self, console):
        out, err = console()
        with capturing():
            with capturing():
                assert isinstance(sys.stdout, Splitter)
            assert isinstance(sys.stdout, Splitter)
        assert (sys.stdout, sys.stderr) == (out, err)

    def test_a_stream_that_was_put_in_place_meanwhile_is_covered_too(self, console):
        out, _ = console()
        with capturing():
            cell = io.StringIO()
            with contextlib.redirect_stdout(cell):
                renew()
                assert captured(print, "task") == "task\n"
                print("cell")
            assert isinstance(sys.stdout, Splitter)
        assert cell.getvalue() == "cell\n"
        assert sys.stdout is out

    def test_it_seems_to_be_the_stream_beneath(self, console):
        console()
        with capturing():
            assert sys.stdout.getvalue() == ""
            assert not sys.stdout.closed
            with pytest.raises(AttributeError, match="no_such"):
                sys.stdout.no_such  # noqa: B018

    def test_what_is_not_text_is_refused_as_everywhere(self, console):
        console()

        def write_bytes():
            with pytest.raises(TypeError, match="must be str, not bytes"):
                sys.stdout.write(b"bytes")

        with capturing():
            assert captured(write_bytes) is None

    def test_tasks_in_two_threads_do_not_mix(self, console):
        console()
        turns = threading.Barrier(2)
        texts = {}

        def speak(word):
            for _ in range(100):
                turns.wait(60)
                print(word)

        def run(word):
            texts[word] = captured(speak, word)

        with capturing():
            threads = [threading.Thread(target=run, args=(word,)) for word in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert texts == {"a": "a\n" * 100, "b": "b\n" * 100}


class TestLogging:
    def test_a_record_that_nobody_would_print_is_noted(self, console, logger):
        console()
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.INFO)
        with capturing():
            assert captured(logger.info, "step %d", 1) == "INFO:tests.capture:step 1\n"

    def test_levels_hold(self, console, logger):
        console()
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.WARNING)
        with capturing():
            assert captured(logger.info, "step") is None

    @pytest.mark.parametrize("configured", ["before", "meanwhile"])
    def test_what_a_console_handler_prints_is_there_once_and_nowhere_else(
        self, console, logger, configured
    ):
        _, err = console()

        def configure():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("my format: %(message)s"))
            logger.addHandler(handler)

        if configured == "before":
            configure()
        with capturing():
            if configured == "meanwhile":
                configure()
            assert captured(logger.warning, "hot") == "my format: hot\n"
            logger.warning("cell")
        logger.warning("after")
        assert err.getvalue() == "my format: cell\nmy format: after\n"
        assert logger.handlers[0].stream is err

    def test_without_any_handler_the_last_resort_prints_once(self, console, logger):
        console()
        with capturing():
            assert captured(logger.warning, "hot") == "hot\n"
            assert captured(logger.info, "cold") is None

    def test_the_users_own_basicconfig_still_works(self, console, logger):
        _, err = console()
        with capturing():
            logging.basicConfig(format="mine: %(message)s")
            logger.warning("cell")
            assert captured(logger.warning, "task") == "mine: task\n"
        assert err.getvalue() == "mine: cell\n"

    def test_a_handler_that_is_too_strict_to_print_it_does_not_count(self, console, logger):
        console()
        handler = logging.StreamHandler()
        handler.setLevel(logging.ERROR)
        logger.addHandler(handler)
        with capturing():
            assert captured(logger.warning, "hot") == "WARNING:tests.capture:hot\n"

    def test_a_record_whose_arguments_do_not_fit_harms_nobody(self, console, logger):
        console()
        logger.addHandler(logging.NullHandler())
        with capturing():
            assert "not all arguments converted" in captured(logger.warning, "hot", 1)

    def test_record_factories_are_as_before_afterwards(self, console):
        console()
        before = logging.getLogRecordFactory()
        with capturing():
            assert logging.getLogRecordFactory() is not before
        assert logging.getLogRecordFactory() is before


class TestTranscript:
    def test_nothing_is_nothing(self):
        assert Transcript().text() is None

    @pytest.mark.parametrize("piece", [1, 7, 1000, LIMIT, 10 * LIMIT])
    def test_long_text_keeps_its_head_and_its_tail(self, piece):
        text = "".join(f"{i:08d}" for i in range(LIMIT))
        transcript = Transcript()
        for start in range(0, len(text), piece):
            transcript.write(text[start : start + piece])
        half = LIMIT // 2
        cut = len(text) - LIMIT
        expected = f"{text[:half]}\n[... {cut:,} characters cut ...]\n{text[-half:]}"
        assert transcript.text() == expected
        assert transcript.text() == expected

    def test_text_up_to_the_limit_is_whole(self):
        transcript = Transcript()
        transcript.write("x" * LIMIT)
        assert transcript.text() == "x" * LIMIT

    def test_several_threads_may_write_to_one(self):
        transcript = Transcript()

        def write():
            for _ in range(20_000):
                transcript.write("x" * 10)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        head, mark, tail = transcript.text().split("\n")
        cut = int(mark.split()[1].replace(",", ""))
        assert len(head) + len(tail) + cut == 800_000

    def test_half_surrogate_pairs_are_escaped(self):
        transcript = Transcript()
        transcript.write("a \udc80 b")
        assert transcript.text() == "a \\udc80 b"
