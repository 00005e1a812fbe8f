"""The task, its states, its retry policy, and who runs it.

Not here: which transition is allowed (`omniq_nb.machine`), and how a call becomes bytes
(`omniq_nb.codec`).
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec


class State(StrEnum):
    """Where a task stands. ``machine.py`` draws the transitions."""

    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    def __repr__(self) -> str:
        # As a word: who prints `batch.counts()` wants to read it.
        return repr(self.value)

    @property
    def final(self) -> bool:
        """Whether the task is over: no worker will touch it unless it is requeued by hand."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
"""The states in which a task has an outcome."""

LIVE = frozenset({State.BLOCKED, State.QUEUED, State.RUNNING})
"""The states in which a task still has work before it."""

STATES = {state.value: state for state in State}
"""By their words. To look one up takes a tenth of what it takes to call the enumeration."""


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often, how soon and after which exceptions a failed attempt is repeated.

    The n-th retry waits ``min(delay * backoff**(n - 1), max_delay)`` seconds, then up to
    ``jitter`` times that much longer, drawn evenly, so that many failures do not return at once.

    Attributes
    ----------
    limit : int
        Retries after the first attempt; 0 never retries.
    delay : float
        Seconds before the first retry.
    backoff : float
        The factor from one wait to the next.
    max_delay : float
        The longest wait in seconds, before jitter.
    jitter : float
        The share of the wait that is drawn at random, 0 to 1.
    on : tuple of str
        Retry only after these exceptions, or any of their subclasses, each named
        ``"module.QualName"``. Empty: after every exception.
    never : tuple of str
        Exceptions after which there is no retry, whatever `on` says.
    """

    limit: int = 0
    delay: float = 1.0
    backoff: float = 2.0
    max_delay: float = 3600.0
    jitter: float = 0.1
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


class Task(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One call to be made: what was asked for, and where it stands.

    All times are seconds since 1970 in UTC; all spans are seconds. The first group of fields
    is written once, by whoever submits; the second belongs to the queue, which alone changes it.

    Attributes
    ----------
    id : str
        Unique for ever. A deterministic id makes resubmission harmless.
    name : str
        The function's qualified name, or what the user calls the task.
    queue, priority
        Higher priority runs first, within its queue.
    batch, position
        The batch that this task is part of, and its place in it, from 0.
    call : bytes
        The signed payload of function and arguments (`omniq_nb.codec`).
    arguments : str
        The arguments by name as a JSON object, for people and queries only.
    tags, metadata
        What the user attached: words, and a JSON object.
    created_at, available_at : float
        When it was submitted; when it may start (ETA, delay, next retry). While it runs,
        `available_at` is the lease's deadline: an expired lease is simply due again.
    expires_at : float or None
        If no attempt started by then, the task expires.
    timeout : float or None
        Seconds that one attempt may take.
    result_ttl : float or None
        Seconds that the result is kept.
    retry : Retry
        What happens after an attempt that raised.
    depends_on : tuple of str
        Ids of tasks that must succeed first.
    schedule : str or None
        The schedule that enqueued it.
    bundles : tuple of str
        The names of the bundles that `call` refers to: what is too large to be stored with each
        task that needs it. A queue may forget them when the task has succeeded.
    state, attempt, token
        `attempt` counts the claims since the last (re)queueing by hand, less the ones that
        were released unstarted. `token` counts all claims ever and so fences off a zombie.
    lost : int
        How many of those attempts ended because their worker vanished.
    worker : str or None
        Who holds it or held it last.
    started_at, finished_at : float or None
        Of the last attempt.
    error : str or None
        The last attempt's ``"Type: message"``, cut to 500 characters.
    seq : int
        The order of arrival, given by the queue.
    """

    id: str
    name: str
    call: bytes = b""
    queue: str = "default"
    priority: int = 0
    batch: str | None = None
    position: int = 0
    arguments: str = "{}"
    tags: tuple[str, ...] = ()
    metadata: str = "{}"
    created_at: float = 0.0
    available_at: float = 0.0
    expires_at: float | None = None
    timeout: float | None = None
    result_ttl: float | None = None
    retry: Retry = Retry()
    depends_on: tuple[str, ...] = ()
    schedule: str | None = None
    bundles: tuple[str, ...] = ()

    state: State = State.QUEUED
    attempt: int = 0
    token: int = 0
    lost: int = 0
    worker: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    error: str | None = None
    seq: int = 0

    @property
    def claim(self) -> "Claim":
        """The proof, for extend and settle, of which claim of the task this is."""
        return Claim(self.id, self.token)

    @property
    def retries_left(self) -> int:
        """Retries that remain after the current attempt; attempts lost with a worker are free."""
        return max(0, self.retry.limit + 1 - (self.attempt - self.lost))


class Claim(NamedTuple):
    """A task id and the token of one claim of it."""

    id: str
    token: int


class Settle(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """How one claim ended. The queue applies it only if `token` is the task's newest.

    Attributes
    ----------
    id, token
        The claim.
    to : State
        SUCCEEDED, FAILED, CANCELLED, or QUEUED for a retry or a release.
    released : bool
        With QUEUED: the attempt was not made (a stopping worker gives it back), so it does
        not count, and the task is available at once.
    available_at : float
        With QUEUED and not released: when the retry may start.
    started_at, finished_at : float or None
        Of the attempt.
    error : str or None
        ``"Type: message"`` of a failed attempt.
    """

    id: str
    token: int
    to: State
    released: bool = False
    available_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    error: str | None = None


class WorkerInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a worker says of itself with each heartbeat.

    Attributes
    ----------
    id : str
        Unique for ever: host, process id and a random part.
    kind : str
        ``"thread"``, ``"async"``, ``"process"``, ``"process-per-task"``, or how it was launched:
        ``"background"``.
    queues : tuple of str
        In the order in which it asks them.
    concurrency : int
        Tasks that it runs at the same time.
    state : str
        ``"running"``, ``"draining"`` or ``"stopped"``; ``"dead"`` is what others say of it.
    host, pid
        Where it lives.
    started_at, heartbeat_at : float
        Seconds since 1970 in UTC.
    running, succeeded, failed : int
        Tasks under way, and attempts that ended so, since it started.
    log : str
        The file on its host that it writes to; empty if there is none.
    python, environment : str
        The version of Python that it runs, and the hash of its environment, as events have it.
    process : str
        Its process, in words that no other has: see `omniq_nb.liveness.this_process`.
    """

    id: str
    kind: str = "thread"
    queues: tuple[str, ...] = ("default",)
    concurrency: int = 1
    state: str = "running"
    host: str = ""
    pid: int = 0
    started_at: float = 0.0
    heartbeat_at: float = 0.0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    log: str = ""
    python: str = ""
    environment: str = ""
    process: str = ""
