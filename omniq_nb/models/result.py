"""The outcome of one task."""

import msgspec

from omniq_nb.models.task import State


class Result(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What the attempt with this `token` came to.

    A store keeps at most one result for each task: the one with the highest token. It counts
    only when the queue settled the task by that very token, so a zombie's result never shows.

    Attributes
    ----------
    task_id, token
        The claim that produced it.
    name, queue, batch, position, arguments, attempt, worker
        As in `omniq_nb.models.task.Task`.
    state : State
        A final state.
    created_at, started_at, finished_at : float or None
        Seconds since 1970 in UTC.
    payload : bytes
        The signed value, or the signed exception (`omniq_nb.codec`); empty if there is none.
    value : str or None
        The value as JSON where that is possible in reasonable size, for people and queries.
    value_type : str or None
        ``"module.QualName"`` of the value, or of the exception.
    error, traceback : str or None
        ``"Type: message"`` and the formatted traceback of a failed attempt.
    output : str or None
        What the attempt wrote to stdout, stderr and logging, in order, cut in the middle
        when long.
    expires_at : float or None
        When it may be purged.
    """

    task_id: str
    token: int
    name: str
    state: State
    queue: str = "default"
    batch: str | None = None
    position: int = 0
    arguments: str = "{}"
    attempt: int = 0
    worker: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    payload: bytes = b""
    value: str | None = None
    value_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    output: str | None = None
    expires_at: float | None = None
