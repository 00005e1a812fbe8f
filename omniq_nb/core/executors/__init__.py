"""What runs attempts: threads, coroutines of one thread, child processes. One small interface.

`EXECUTORS` names them as ``oq.workers.start(kind=...)`` does.
"""

from collections.abc import Mapping

from omniq_nb.core.context import Progress
from omniq_nb.core.executors.aio import AsyncExecutor
from omniq_nb.core.executors.base import Executor
from omniq_nb.core.executors.process import ProcessExecutor
from omniq_nb.core.executors.thread import ThreadExecutor
from omniq_nb.core.run import Outcome

EXECUTORS: Mapping[str, type[Executor]] = {
    executor.kind: executor for executor in (ThreadExecutor, AsyncExecutor, ProcessExecutor)
}

__all__ = [
    "EXECUTORS",
    "Executor",
    "Outcome",
    "Progress",
    "AsyncExecutor",
    "ProcessExecutor",
    "ThreadExecutor",
]
