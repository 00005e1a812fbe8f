"""What a process executor and its children speak through."""

import os
import random
import threading
from collections.abc import Iterator

import pytest

from omniq_nb.core.permits import CAN_RECALL, Permits, wait
from omniq_nb.core.pipes import AT_ONCE, Receiver, send
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not CAN_RECALL, reason="needs POSIX pipes")


@pytest.fixture
def permits() -> Iterator[Permits]:
    made = Permits()
    yield made
    made.close()


class TestPermits:
    def test_are_read_in_order_and_what_is_not_read_can_be_taken_back(self, permits):
        for number in (1, 2, 3, 4):
            permits.give(number)
        assert [wait(permits.descriptor), wait(permits.descriptor)] == [1, 2]
        assert permits.recall() == {3, 4}
        assert permits.recall() == set()
        permits.give(4)
        assert wait(permits.descriptor) == 4

    def test_each_is_read_once_or_taken_back_once(self, permits):
        read: list[int] = []
        last = 20_000

        def child() -> None:
            while not read or read[-1] != last:
                read.append(wait(permits.descriptor))

        thread = threading.Thread(target=child)
        thread.start()
        recalled: list[int] = []
        for number in range(1, last):
            permits.give(number)
            if number % 7 == 0:
                recalled += sorted(permits.recall())
        permits.give(last)
        thread.join(PATIENCE)
        assert sorted(read + recalled) == list(range(1, last + 1))
        assert read == sorted(read)

    def test_end_with_the_parent(self):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        threading.Timer(0.05, os.close, [writing]).start()
        assert wait(reading) is None
        os.close(reading)


class TestReceiver:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        reading, writing = os.pipe()
        yield reading, writing
        os.close(reading)

    def test_reads_frames_of_any_size_however_they_come(self, pipe):
        reading, writing = pipe
        rng = random.Random(1)
        frames = [rng.randbytes(size) for size in (0, 1, 500, AT_ONCE, 3, 10 * AT_ONCE, 0, 7)]

        def write() -> None:
            data = b"".join(len(frame).to_bytes(8, "big") + frame for frame in frames)
            while data:
                size = rng.choice([1, 7, 100, AT_ONCE])
                os.write(writing, data[:size])
                data = data[size:]
            os.close(writing)

        thread = threading.Thread(target=write)
        thread.start()
        receiver = Receiver(reading)
        assert [receiver.receive() for _ in frames] == frames
        with pytest.raises(EOFError):
            receiver.receive()
        thread.join()

    def test_waits_for_a_frame_without_reading_it(self, pipe):
        reading, writing = pipe
        receiver = Receiver(reading)
        assert not receiver.wait(0)
        assert not receiver.wait(-1)
        with os.fdopen(writing, "wb") as stream:
            send(stream, b"one", b"two")
        assert receiver.wait(PATIENCE)
        assert receiver.receive() == b"one"
        assert receiver.wait(PATIENCE)  # what was read already counts
        assert receiver.receive() == b"two"
        assert receiver.wait(PATIENCE)  # so does the end

    def test_a_frame_that_is_cut_off_is_none(self, pipe):
        reading, writing = pipe
        os.write(writing, (9).to_bytes(8, "big") + b"half")
        os.close(writing)
        with pytest.raises(EOFError):
            Receiver(reading).receive()
