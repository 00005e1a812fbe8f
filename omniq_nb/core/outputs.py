"""Following what running tasks print, whoever runs them.

Workers look at their attempts twice a second and append what is new to the history, as events
of the type `output`. A worker of this process also tells those who follow at once; for tasks
that run elsewhere the event store is asked. The whole output is in the result, once there is
one.

Not here: how text is captured (`omniq_nb.core.capture`), and when a worker looks
(`omniq_nb.core.worker`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future

import msgspec

from omniq_nb.core.capture import Transcript, remainder, shortened
from omniq_nb.core.events import EventLog, event
from omniq_nb.core.outcomes import Outcomes, Waiting
from omniq_nb.errors import OmniQError
from omniq_nb.explore import Explorer
from omniq_nb.models.event import Event, EventType
from omniq_nb.models.result import Result
from omniq_nb.models.task import State, Task, WorkerInfo
from omniq_nb.storage.base import Stores

LOOK_EVERY = 0.5
"""Seconds between two looks at what tasks print."""

ASK_LAST = 10.0
"""The longest pause between two questions to an event store that is slow, seconds."""

ASK_SHARE = 0.05
"""The share of the time that asking may take."""

RECENT = 60.0
"""How old an event may be and still be news: other machines' clocks differ, and stores lag."""

log = logging.getLogger("omniq_nb.outputs")


class Piece(msgspec.Struct, frozen=True):
    """Some of what one attempt printed: the `data` of an event of the type `output`.

    Attributes
    ----------
    token : int
        The attempt's token.
    start : int
        How many characters it printed before.
    text : str
        What it printed then.
    """

    token: int
    start: int
    text: str


News = Piece | Result | BaseException
"""What a follower is told: more output, the end, or that there will be none."""

_decoder = msgspec.json.Decoder(Piece)
_encoder = msgspec.json.Encoder()


def output_event(task: Task, piece: Piece, worker: str) -> Event:
    """The event that keeps a piece."""
    return event(
        EventType.OUTPUT,
        time.time(),
        task,
        id=f"{task.id}:{piece.token}:{EventType.OUTPUT}:{piece.start}",
        worker=worker,
        data=_encoder.encode(piece).decode(),
    )


class Follower:
    """Puts the pieces of one task's output in order. No I/O."""

    def __init__(self) -> None:
        self._token = 0
        self._seen = 0

    def take(self, piece: Piece) -> str:
        """What is new in this piece. Pieces may come twice, and some may be missing."""
        if piece.token < self._token:
            return ""
        if piece.token > self._token:
            self._token, self._seen = piece.token, 0
        missed = piece.start - self._seen
        end = piece.start + len(piece.text)
        if end <= self._seen:
            return ""
        self._seen = end
        return shortened("", piece.text, missed) if missed > 0 else piece.text[-missed:]

    def finish(self, result: Result) -> str:
        """What is new in the whole output."""
        seen = self._seen if result.token == self._token else 0
        return remainder(result.output or "", seen)


class Following:
    """One open ear for one task. `Outputs.follow` opens it.

    Parameters
    ----------
    task_id : str
        Which task.
    told : callable
        Is given the news, from any thread.
    """

    def __init__(self, task_id: str, told: Callable[[News], None]) -> None:
        self.task_id = task_id
        self.told = told
        self.held: list[Piece] | None = []
        """Pieces that came before the earlier ones were read."""
        self.ended: Waiting | None = None
        self._follower = Follower()

    def text(self, news: News) -> str:
        """What is new in it.

        Raises
        ------
        BaseException
            The news is that there will be no more.
        """
        if isinstance(news, Piece):
            return self._follower.take(news)
        if isinstance(news, Result):
            return self._follower.finish(news)
        raise news


class Outputs:
    """Brings what tasks print to those who follow them.

    Parameters
    ----------
    stores : Stores
        Asked about tasks that run elsewhere.
    explorer : Explorer
        Over the same stores.
    events : EventLog
        What may not have reached the event store yet.
    outcomes : Outcomes
        Tells of ended tasks.
    """

    def __init__(
        self, stores: Stores, explorer: Explorer, events: EventLog, outcomes: Outcomes
    ) -> None:
        self._stores = stores
        self._explorer = explorer
        self._events = events
        self._outcomes = outcomes
        self._lock = threading.Lock()
        self._followed: dict[str, list[Following]] = {}
        self._own: set[str] = set()
        self._asking: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def publish(self, worker: WorkerInfo, printed: Iterable[tuple[Task, int, str]]) -> None:
        """Tell what attempts of a worker of this process printed, and write it down."""
        self._own.add(worker.id)
        for task, start, text in printed:
            piece = Piece(task.token, start, text)
            self._events.emit([output_event(task, piece, worker.id)])
            self._tell(task.id, piece)

    async def so_far(self, task: Task) -> str:
        """What a running task printed until the last look, shortened if it is long."""
        follower, transcript = Follower(), Transcript()
        for piece in await self._earlier(task):
            transcript.write(follower.take(piece))
        return transcript.text() or ""

    async def follow(
        self, task_id: str, told: Callable[[News], None], *, past: bool = True
    ) -> Following:
        """Tell of all that this task prints and printed in this attempt, then of its end.

        On the client's loop. `told` is called from any thread, until `forget`. Without `past`
        the event store is not asked for what a worker of this process noted before: nothing, if
        the task was submitted just now.
        """
        following = Following(task_id, told)
        with self._lock:
            self._followed.setdefault(task_id, []).append(following)
        try:
            earlier: list[Piece] = []
            if past:
                (task,) = await self._stores.task_queue.get([task_id])
                if task is not None and task.state is State.RUNNING:
                    earlier = await self._earlier(task)
            with self._lock:
                for piece in [*earlier, *(following.held or ())]:
                    told(piece)
                following.held = None
            following.ended = await self._outcomes.wait([task_id], told)
        except BaseException:
            self.forget(following)
            raise
        following.ended.done.add_done_callback(lambda done: _pass_error(done, told))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_on(), name="omniq outputs")
        return following

    async def _earlier(self, task: Task) -> list[Piece]:
        """What the attempt under way printed until the last look."""
        stored = await self._stored([task], (task.started_at or 0.0) - RECENT)
        return [piece for _, piece in stored if piece.token == task.token]

    def forget(self, following: Following) -> None:
        """Nobody follows it any more."""
        with self._lock:
            others = self._followed.get(following.task_id, [])
            if following in others:
                others.remove(following)
            if not others:
                self._followed.pop(following.task_id, None)
        if following.ended is not None:
            self._outcomes.forget(following.ended)

    def _tell(self, task_id: str, piece: Piece) -> None:
        with self._lock:
            for following in self._followed.get(task_id, ()):
                if following.held is None:
                    following.told(piece)
                else:
                    following.held.append(piece)

    async def _ask_on(self) -> None:
        """Ask about the tasks that run elsewhere, as long as somebody follows any."""
        pause = LOOK_EVERY
        while self._followed:
            await asyncio.sleep(pause)
            started = time.monotonic()
            try:
                await self._ask()
            except OmniQError as error:
                log.warning("live output waits: %s", error)
            took = time.monotonic() - started
            pause = max(LOOK_EVERY, min(took / ASK_SHARE, ASK_LAST))

    async def _ask(self) -> None:
        tasks = await self._stores.task_queue.get(list(self._followed))
        elsewhere = [
            task
            for task in tasks
            if task is not None and task.state is State.RUNNING and task.worker not in self._own
        ]
        if elsewhere:
            for task_id, piece in await self._stored(elsewhere, time.time() - RECENT):
                self._tell(task_id, piece)

    async def _stored(self, tasks: Sequence[Task], since: float) -> list[tuple[str, Piece]]:
        """The pieces of these tasks in the event store from that time on, oldest first."""
        await self._events.flush()
        rows = await self._explorer.table(
            "events",
            columns=("task_id", "data"),
            since=since,
            where={"type": str(EventType.OUTPUT), "task_id": [task.id for task in tasks]},
        )
        return [
            (task_id, _decoder.decode(data))
            for task_id, data in zip(*map(list, rows.to_pydict().values()), strict=True)
        ]


def _pass_error(done: Future[dict[str, Result]], told: Callable[[News], None]) -> None:
    """Tell that there will be no outcome: the task is unknown, or the client is closed."""
    if done.cancelled():
        told(CancelledError())
    elif error := done.exception():
        told(error)
