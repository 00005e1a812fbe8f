"""Starting, scaling, stopping and listing the workers of this client, and the ticking of schedules.

Not here: what a worker does (`omniq_nb.core.worker`).
"""

import asyncio
import difflib
from collections.abc import Callable, Sequence

from omniq_nb.core.engine import Engine
from omniq_nb.core.executors import EXECUTORS, Executor
from omniq_nb.core.ticker import Ticker
from omniq_nb.core.worker import Worker
from omniq_nb.errors import ConfigError
from omniq_nb.models.task import WorkerInfo

STOP_TIMEOUT = 10.0
"""Seconds that running tasks have, by default, when workers stop."""


class AsyncWorkers:
    """``oq.workers``: at most one worker for each kind and choice of queues, of any size.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._workers: dict[tuple[str, tuple[str, ...]], Worker] = {}
        self._ticker = Ticker(engine)
        self._changing = asyncio.Lock()

    async def start(
        self,
        n: int | None = None,
        kind: str | None = None,
        queues: str | Sequence[str] | None = None,
    ) -> WorkerInfo:
        """Have `n` tasks run at the same time. Doing it again only changes the number.

        Parameters
        ----------
        n : int, optional
            Tasks at the same time; unless given, ``OMNIQ_THREAD_WORKERS`` or
            ``OMNIQ_PROCESS_WORKERS``, never more than ``OMNIQ_MAX_WORKERS``.
        kind : {"thread", "async", "process"}, optional
            What runs them: threads of this process, coroutines of one thread, or child
            processes, which alone use several cores for Python code and can be ended at any
            time. ``OMNIQ_DEFAULT_WORKER`` unless given.
        queues : str or sequence of str, optional
            Which queues are asked, in this order; ``OMNIQ_DEFAULT_QUEUE`` unless given.

        Returns
        -------
        WorkerInfo
            The worker, as the view `workers` shows it.

        Raises
        ------
        ConfigError
            A wrong number, kind or queue.
        """
        settings = self._engine.config.settings
        kind = settings.default_worker if kind is None else kind
        if kind not in EXECUTORS:
            nearest = difflib.get_close_matches(str(kind), EXECUTORS, 1)
            raise ConfigError("kind", kind, ", ".join(sorted(EXECUTORS)), *nearest)
        if n is None:
            n = settings.process_workers if kind == "process" else settings.thread_workers
            n = min(n, settings.max_workers)
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= settings.max_workers:
            allowed = f"an integer from 1 to {settings.max_workers} (OMNIQ_MAX_WORKERS)"
            raise ConfigError("n", n, allowed)
        names = (queues,) if isinstance(queues, str) else tuple(queues or (settings.default_queue,))
        if not all(isinstance(name, str) and name for name in names):
            raise ConfigError("queues", queues, "a queue's name, or several in the order to ask")
        async with self._changing:
            worker = self._workers.get((kind, names))
            if worker is not None:
                worker.resize(n)
                return worker.info
            worker = Worker(self._engine, self._maker(EXECUTORS[kind]), names, n)
            await worker.start()
            self._workers[kind, names] = worker
            self._engine.workers.append(worker)
            self._ticker.start()
            return worker.info

    async def stop(self, *, drain: bool = False, timeout: float | None = STOP_TIMEOUT) -> None:
        """Stop all workers of this client.

        Parameters
        ----------
        drain : bool
            First work until the queues are empty; otherwise only finish what runs.
        timeout : float or None
            Seconds, after which what still runs is given back to the queue for another worker;
            None waits as long as it takes. A running thread cannot be ended: its function goes
            on to its end, and what it returns is thrown away.
        """
        async with self._changing:
            workers = list(self._workers.values())
            self._workers.clear()
            await self._ticker.stop()
            await asyncio.gather(*(worker.stop(drain=drain, timeout=timeout) for worker in workers))
            for worker in workers:
                self._engine.workers.remove(worker)

    async def scale(self, n: int) -> None:
        """Change how many tasks each worker of this client runs at the same time."""
        for kind, queues in list(self._workers):
            await self.start(n, kind, queues)

    async def list(self) -> list[WorkerInfo]:
        """All workers that ever sent a heartbeat to this queue, newest last."""
        workers = await self._engine.stores.task_queue.workers()
        return sorted(workers, key=lambda info: info.started_at)

    def _maker(self, kind: type[Executor]) -> Callable[[int, Callable[[], None]], Executor]:
        prefer = self._engine.result_format
        return lambda n, notify: kind(n, self._engine.codec, notify, prefer)
