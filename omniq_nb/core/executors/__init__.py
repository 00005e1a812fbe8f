"""What runs attempts: threads, coroutines of one thread, child processes. One small interface.

`EXECUTORS` names them as ``oq.workers.start(kind=...)`` does.
"""

from collections.abc import Callable, Mapping

from omniq_nb.codec import Codec
from omniq_nb.codec.bundles import Fetch
from omniq_nb.core.context import Progress
from omniq_nb.core.executors.aio import AsyncExecutor
from omniq_nb.core.executors.base import Executor
from omniq_nb.core.executors.process import ProcessExecutor, ProcessPerTaskExecutor
from omniq_nb.core.executors.thread import ThreadExecutor
from omniq_nb.core.run import Outcome

EXECUTORS: Mapping[str, type[Executor]] = {
    executor.kind: executor
    for executor in (ThreadExecutor, AsyncExecutor, ProcessExecutor, ProcessPerTaskExecutor)
}


def maker(
    kind: str, codec: Codec, prefer: str, fetch: Fetch
) -> Callable[[int, Callable[[], None]], Executor]:
    """What makes executors of this kind, given their size and whom they notify."""
    executor = EXECUTORS[kind]
    return lambda n, notify: executor(n, codec, notify, prefer, fetch)


__all__ = [
    "EXECUTORS",
    "maker",
    "Executor",
    "Outcome",
    "Progress",
    "AsyncExecutor",
    "ProcessExecutor",
    "ProcessPerTaskExecutor",
    "ThreadExecutor",
]
