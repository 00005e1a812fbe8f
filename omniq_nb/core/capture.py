"""What a task prints goes to the task's transcript, not into whatever cell happens to run.

While an in-process executor runs, ``sys.stdout`` and ``sys.stderr`` are `Splitter`s: they look
up the transcript of the current context, and without one they hand everything through to the
stream beneath. Logging needs no handler of ours, which would change what ``basicConfig`` and
logging's last resort do for the rest of the process: handlers that write to the console write
to a splitter, and a record that no console handler prints is noted when it is made.

A thread that the task starts has a context of its own (before Python 3.14) and so prints past
the transcript, unless it was started through ``contextvars.copy_context().run`` or
``asyncio.to_thread``. What C code and subprocesses write is captured by process workers only.
"""

import contextlib
import io
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import BinaryIO, Literal, NamedTuple, TextIO, cast

LIMIT = 65_536
"""Characters of a transcript that are kept: the first and the last half."""

LOOK_LIMIT = 8192
"""The most characters that one look at a transcript gives. No more than half of `LIMIT`."""

_CUT = re.compile(r"\n\[\.\.\. ([\d,]+) characters cut \.\.\.\]\n")

TRANSCRIPT: "ContextVar[Transcript | None]" = ContextVar("omniq_nb.transcript", default=None)
"""Where the current context prints to."""


def shortened(head: str, tail: str, cut: int) -> str:
    """Join a beginning and an end with a mark for the `cut` characters between them."""
    return f"{head}\n[... {cut:,} characters cut ...]\n{tail}" if cut else head + tail


def remainder(text: str, seen: int) -> str:
    """Give what comes after the first `seen` characters of a text that may be `shortened`."""
    # A mark that a task prints itself is hardly that far from the beginning.
    mark = _CUT.search(text, LIMIT // 8)
    if mark is None or seen < mark.start():
        return text[seen:]
    tail = text[mark.end() :]
    unseen = mark.start() + int(mark[1].replace(",", "")) + len(tail) - seen
    return shortened("", tail, unseen - len(tail)) if unseen > len(tail) else tail[-unseen:]


def storable(text: str) -> str:
    """Escape what no store can hold: halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Look(NamedTuple):
    """What was new at one look.

    Attributes
    ----------
    text : str
        The newest of it, at most `LOOK_LIMIT` characters.
    skipped : int
        How many characters were new besides, before that text.
    position : int
        From where the next look goes on.
    """

    text: str
    skipped: int
    position: int


class Transcript:
    """Text in the order in which it was written, bounded. Safe from several threads."""

    __slots__ = ("_cut", "_head", "_parts", "_size")

    def __init__(self) -> None:
        self._head = ""
        self._cut = 0
        self._parts: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Append."""
        self._parts.append(text)
        self._size += len(text)
        if self._size > 2 * LIMIT:
            with _compacting:
                self._compact()

    def text(self) -> str | None:
        """All that is kept. None if nothing was written."""
        if not self._parts:
            return None
        with _compacting:
            if self._head or self._size > LIMIT:
                self._compact()
            return storable(shortened(self._head, "".join(self._parts), self._cut))

    def since(self, position: int) -> Look:
        """What was written after that many characters."""
        if not self._parts:
            return Look("", 0, position)
        with _compacting:
            count = len(self._parts)
            recent = "".join(self._parts[:count])
            self._parts[:count] = [recent]
            start = len(self._head) + self._cut
            end = start + len(recent)
            begin = max(position, end - LOOK_LIMIT)
            # Where something was cut, there is more behind it than one look gives.
            text = recent[begin - start :] if begin >= start else self._head[begin:] + recent
        return Look(storable(text), begin - position, end)

    def _compact(self) -> None:
        """Keep the head and as much of the tail; other threads may append meanwhile."""
        count = len(self._parts)
        text = "".join(self._parts[:count])
        if not self._head:
            self._head, text = text[: LIMIT // 2], text[LIMIT // 2 :]
        tail = text[-(LIMIT // 2) :]
        self._cut += len(text) - len(tail)
        self._parts[:count] = [tail]
        self._size = len(tail)


_compacting = threading.Lock()


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer`` inside a task."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        octets = bytes(memoryview(data))  # type: ignore[arg-type]
        self._transcript.write(octets.decode("utf-8", "replace"))
        return len(octets)


class Splitter:
    """A stand-in for ``sys.stdout`` or ``sys.stderr`` that sends each task's text its own way.

    Parameters
    ----------
    beneath : file object
        What it stands in for; gets everything that is not written by a task.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def __getattr__(self, name: str) -> object:
        return getattr(self.beneath, name)

    def write(self, text: str) -> int:
        """Write to the task's transcript, or through."""
        transcript = TRANSCRIPT.get()
        if transcript is None:
            return self.beneath.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        transcript.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what is beneath; a transcript has nothing to flush."""
        if TRANSCRIPT.get() is None:
            self.beneath.flush()

    def isatty(self) -> bool:
        """Whether a person sees it at once."""
        return TRANSCRIPT.get() is None and self.beneath.isatty()

    @property
    def buffer(self) -> "BinaryIO | _Bytes":
        """The same for bytes."""
        transcript = TRANSCRIPT.get()
        return self.beneath.buffer if transcript is None else _Bytes(transcript)


# ---------------------------------------------------------------- installing

_Name = Literal["stdout", "stderr"]
_NAMES: tuple[_Name, _Name] = ("stdout", "stderr")
_RecordFactory = Callable[..., logging.LogRecord]

_installing = threading.Lock()
_users = 0
_records: "_Records | None" = None


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """Have splitters in place, shared by all who ask, until the last one leaves."""
    global _users
    with _installing:
        _users += 1
        if _users == 1:
            _install()
    try:
        yield
    finally:
        with _installing:
            _users -= 1
            if _users == 0:
                _uninstall()


def renew() -> None:
    """Put splitters in place again if somebody replaced the streams meanwhile."""
    if _users and not (type(sys.stdout) is type(sys.stderr) is Splitter):
        with _installing:
            if _users:
                _install()


def _install() -> None:
    global _records
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Splitter):
            splitter = cast(TextIO, Splitter(stream))
            setattr(sys, name, splitter)
            # Made before us, it would go on printing into the notebook.
            _repoint(stream, splitter)
    if _records is None:
        _records = _Records(logging.getLogRecordFactory())
        logging.setLogRecordFactory(_records)


def _uninstall() -> None:
    global _records
    for name in _NAMES:
        stream = getattr(sys, name)
        if isinstance(stream, Splitter):
            setattr(sys, name, stream.beneath)
            _repoint(stream, stream.beneath)
    if _records is not None and logging.getLogRecordFactory() is _records:
        logging.setLogRecordFactory(_records.beneath)
        _records = None


def _repoint(old: object, new: TextIO) -> None:
    """Have logging handlers that write to one stream write to the other."""
    # Copied at once, because other threads may create loggers meanwhile.
    for logger in [logging.root, *logging.root.manager.loggerDict.copy().values()]:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


class _Records:
    """A log record factory that notes a task's record if no console handler will print it."""

    def __init__(self, beneath: _RecordFactory) -> None:
        self.beneath = beneath

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self.beneath(*args, **kwargs)
        if TRANSCRIPT.get() is not None and not _printed(record):
            _notes.handle(record)
        return record


class _Notes(logging.Handler):
    """Writes records to the transcript. Attached to no logger: `_Records` calls it."""

    def emit(self, record: logging.LogRecord) -> None:
        transcript = TRANSCRIPT.get()
        if transcript is not None:
            try:
                transcript.write(self.format(record) + "\n")
            except Exception:
                # Arguments that do not fit their message: as for any handler, tell and go on.
                self.handleError(record)


_notes = _Notes()
_notes.setFormatter(logging.Formatter(logging.BASIC_FORMAT))


def _printed(record: logging.LogRecord) -> bool:
    """Whether some handler will write it to the console, and so to the transcript."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    handled = False
    while logger is not None:
        for handler in logger.handlers:
            handled = True
            if (
                record.levelno >= handler.level
                and isinstance(handler, logging.StreamHandler)
                and isinstance(handler.stream, Splitter)
            ):
                return True
        logger = logger.parent if logger.propagate else None
    # Where nobody handles records, logging's last resort prints warnings to sys.stderr.
    return not handled and record.levelno >= logging.WARNING
