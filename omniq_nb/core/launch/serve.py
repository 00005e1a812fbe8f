"""The life of one worker in a process of its own: from its order until something ends it.

Not here: who starts that process (`omniq_nb.core.launch.background`, the command line), and
the claim loop itself (`omniq_nb.core.worker`).
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from enum import StrEnum

from omniq_nb.config import OmniQConfig
from omniq_nb.core.client import make_engine
from omniq_nb.core.executors import maker
from omniq_nb.core.launch.base import WorkerOrder
from omniq_nb.core.ticker import Ticker
from omniq_nb.core.worker import Worker
from omniq_nb.models.task import WorkerInfo

TICK = 0.1
"""Seconds between two looks at whether it is time to end."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""The first one means: finish what runs. The second: give it back."""

MEMORY_EVERY = 1.0
"""Seconds between two looks at the memory."""

log = logging.getLogger("omniq_nb.launch")


class Ending(StrEnum):
    """Why a worker ended."""

    STOPPED = "stopped"
    IDLE = "idle"
    SPENT = "spent"
    """It reached a limit, and a fresh one should take its place."""


class Service:
    """One worker, served until it is stopped, was idle for too long, or has reached a limit.

    Parameters
    ----------
    config : OmniQConfig
        Where its tasks are.
    order : WorkerOrder
        What it shall do.
    kind : str
        What it is called in tables.
    log_file : str
        Where its process writes to, if that is a file.
    on_tick : callable, optional
        Is given the worker's description about ten times a second, from the first claim on.
    key : bytes, optional
        The project's key, where it cannot be looked up.
    """

    def __init__(
        self,
        config: OmniQConfig,
        order: WorkerOrder,
        kind: str,
        log_file: str = "",
        on_tick: Callable[[WorkerInfo], None] | None = None,
        key: bytes | None = None,
    ) -> None:
        self._config = config
        self._order = order
        self._kind = kind
        self._log_file = log_file
        self._on_tick = on_tick
        self._key = key
        self._worker: Worker | None = None
        self._stops = 0

    def stop(self) -> None:
        """Finish what runs and end; at the second call, give back what runs. From any thread."""
        self._stops += 1
        if self._stops > 1 and self._worker is not None:
            self._worker.hurry()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stops > 0

    async def run(self) -> Ending:
        """Work until it is over.

        Raises
        ------
        OmniQError
            The configuration is wrong, or a store cannot be opened.
        """
        order = self._order
        engine = make_engine(self._config, self._key)
        await engine.open()
        try:
            worker = self._worker = Worker(
                engine,
                maker(order.isolation, engine.codec, engine.result_format, engine.bundles.fetch),
                order.queues,
                order.concurrency,
                kind=self._kind,
                log=self._log_file,
                max_tasks=order.max_tasks,
            )
            await worker.start()
            ticker = Ticker(engine)
            ticker.start()
            log.info("worker %s started: queues %s", worker.info.id, ", ".join(order.queues))
            ending = await self._watch(worker)
            log.info("worker %s finishes what it runs: %s", worker.info.id, ending)
            await ticker.stop()
            if self._stops > 1:
                worker.hurry()
            await worker.stop(drain=False, timeout=None)
            log.info(
                "worker %s ended: %d succeeded, %d failed",
                worker.info.id, worker.info.succeeded, worker.info.failed,
            )  # fmt: skip
        finally:
            await engine.close()
        return ending

    async def _watch(self, worker: Worker) -> Ending:
        order, info = self._order, worker.info
        busy_at, memory_at, done = time.monotonic(), 0.0, 0
        while not self._stops:
            if self._on_tick is not None:
                self._on_tick(info)
            await asyncio.sleep(TICK)
            now = time.monotonic()
            if worker.busy or info.succeeded + info.failed != done:
                busy_at, done = now, info.succeeded + info.failed
            if order.idle_timeout is not None and now - busy_at >= order.idle_timeout:
                return Ending.IDLE
            if worker.spent:
                return Ending.SPENT
            if order.max_memory is not None and now >= memory_at:
                memory_at = now + MEMORY_EVERY
                if (used := memory()) > order.max_memory:
                    log.warning("worker %s uses %d MB", info.id, used >> 20)
                    return Ending.SPENT
        return Ending.STOPPED


def serve(service: Service) -> Ending:
    """Run a service as what this process is for, told to stop by SIGTERM or Ctrl-C.

    After SPENT these signals are kept back, so that none is lost while the process replaces
    itself; serving again lets them through.
    """
    for number in SIGNALS:
        signal.signal(number, lambda *_: service.stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ending = asyncio.run(service.run())
    if ending is Ending.SPENT:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if service.stopping:
            return Ending.STOPPED
    return ending


def memory() -> int:
    """Bytes that this process and those below it use."""
    import psutil  # only who limits memory needs it

    process = psutil.Process(os.getpid())
    used = 0
    for one in (process, *process.children(recursive=True)):
        try:
            used += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return used
