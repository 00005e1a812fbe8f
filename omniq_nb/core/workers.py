"""Starting, scaling, stopping and listing workers, and the ticking of schedules.

Not here: what a worker does (`omniq_nb.core.worker`), and how workers outside of this process
are launched (`omniq_nb.core.launch`).
"""

import asyncio
import builtins
import time
from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

from omniq_nb.config.sources import nearest
from omniq_nb.core.engine import Engine
from omniq_nb.core.executors import EXECUTORS, maker
from omniq_nb.core.launch import LAUNCHERS, launcher_kinds, make_launcher
from omniq_nb.core.launch.base import Launcher, WorkerOptions, WorkerOrder
from omniq_nb.core.ticker import Ticker
from omniq_nb.core.worker import PAUSE, Worker, nothing_to_do
from omniq_nb.errors import ConfigError
from omniq_nb.liveness import seen_now
from omniq_nb.models.task import WorkerInfo

STOP_TIMEOUT = 10.0
"""Seconds that running tasks have, by default, when workers stop."""

Launched = Literal["background", "dask"]
"""The kinds of workers that are other processes, and so many of them."""


class AsyncWorkers:
    """``oq.workers``: one worker of any size for each kind in this process, and launched ones.

    Workers of this process are ``"thread"``, ``"async"``, ``"process"`` and
    ``"process-per-task"``: at most one for each kind and choice of queues. They end with the
    client. Launched ones, ``"background"``, live on without it; every client with the same
    configuration finds, scales and stops the same ones.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._workers: dict[tuple[str, tuple[str, ...]], Worker] = {}
        self._launchers: dict[str, tuple[dict[str, object], Launcher]] = {}
        self._ticker = Ticker(engine)
        self._changing = asyncio.Lock()

    @overload
    async def start(
        self,
        n: int | None = None,
        kind: Literal["thread", "async", "process", "process-per-task"] | None = None,
        queues: str | Sequence[str] | None = None,
    ) -> WorkerInfo: ...
    @overload
    async def start(
        self,
        n: int | None = None,
        *,
        kind: Launched,
        queues: str | Sequence[str] | None = None,
        **options: Unpack[WorkerOptions],
    ) -> builtins.list[WorkerInfo]: ...
    @overload
    async def start(
        self,
        n: int | None = None,
        kind: str | None = None,
        queues: str | Sequence[str] | None = None,
        **options: Any,
    ) -> WorkerInfo | builtins.list[WorkerInfo]: ...
    async def start(
        self,
        n: int | None = None,
        kind: str | None = None,
        queues: str | Sequence[str] | None = None,
        **options: Any,
    ) -> WorkerInfo | builtins.list[WorkerInfo]:
        """Have `n` tasks run at the same time. Doing it again only changes the number.

        Parameters
        ----------
        n : int, optional
            Tasks at the same time, or, of launched workers, how many there shall be; unless
            given, ``OMNIQ_THREAD_WORKERS`` or ``OMNIQ_PROCESS_WORKERS``, never more than
            ``OMNIQ_MAX_WORKERS``.
        kind : str, optional
            What runs them. In this process: ``"thread"``, threads; ``"async"``, coroutines of
            one thread; ``"process"``, child processes, which alone use several cores for
            Python code and can be ended at any time; ``"process-per-task"``, a fresh one for
            each attempt. Outliving this process: ``"background"``, detached processes;
            ``"dask"``, tasks of a Dask cluster, whose `address` or `client` is given besides.
            ``OMNIQ_DEFAULT_WORKER`` unless given.
        queues : str or sequence of str, optional
            Which queues are asked, in this order; ``OMNIQ_DEFAULT_QUEUE`` unless given.
        **options
            For launched workers only; see `omniq_nb.core.launch.base.WorkerOptions`.

        Returns
        -------
        WorkerInfo or list of WorkerInfo
            The worker, as the view `workers` shows it; of a launched kind, all `n` of them.

        Raises
        ------
        ConfigError
            A wrong number, kind, queue or option; or a store in memory, which only workers of
            this process can reach.
        WorkerLost
            A launched worker could not start.
        """
        settings = self._engine.config.settings
        kind = settings.default_worker if kind is None else kind
        self._check_kind(kind)
        if n is None:
            threads = kind in ("thread", "async")
            n = settings.thread_workers if threads else settings.process_workers
            n = min(n, settings.max_workers)
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= settings.max_workers:
            allowed = f"an integer from 1 to {settings.max_workers} (OMNIQ_MAX_WORKERS)"
            raise ConfigError("n", n, allowed)
        names = (queues,) if isinstance(queues, str) else tuple(queues or (settings.default_queue,))
        if not all(isinstance(name, str) and name for name in names):
            raise ConfigError("queues", queues, "a queue's name, or several in the order to ask")
        if kind not in EXECUTORS:
            order, others = WorkerOrder.checked(names, options)
            async with self._changing:
                launcher = await self._launcher(kind, others)
                return await launcher.scale(order, n)
        for option, value in options.items():
            allowed = f"nothing: only launched workers ({', '.join(LAUNCHERS)}) have it"
            raise ConfigError(option, value, allowed)
        async with self._changing:
            return await self._start_here(n, kind, names)

    async def stop(
        self, kind: str | None = None, *, drain: bool = False, timeout: float | None = STOP_TIMEOUT
    ) -> None:
        """Stop the workers of this client; launched ones only when their kind is named.

        Parameters
        ----------
        kind : str, optional
            Only these. ``"background"`` stops all background workers of this configuration on
            this machine, whoever started them; without a kind they work on.
        drain : bool
            First work until the queues are empty; otherwise only finish what runs.
        timeout : float or None
            Seconds, after which what still runs is given back to the queue for another worker;
            None waits as long as it takes. A running thread cannot be ended: its function goes
            on to its end, and what it returns is thrown away.
        """
        if kind is not None:
            self._check_kind(kind)
        async with self._changing:
            if kind is None or kind in EXECUTORS:
                await self._stop_here(kind, drain, timeout)
            else:
                await self._stop_launched(kind, drain, timeout)

    async def scale(self, n: int, kind: str | None = None) -> None:
        """Change how many tasks each worker of this client runs at the same time.

        Parameters
        ----------
        n : int
            The new number.
        kind : str, optional
            Only these workers. Of a launched kind: how many workers of each choice of queues
            there shall be.
        """
        if kind is not None:
            self._check_kind(kind)
        if kind is None or kind in EXECUTORS:
            for one, queues in builtins.list(self._workers):
                if kind in (None, one):
                    await self.start(n, one, queues)
        else:
            async with self._changing:
                launcher = await self._launcher(kind)
                for order in {order for order, _ in await launcher.find()}:
                    await launcher.scale(order, n)

    async def list(self) -> builtins.list[WorkerInfo]:
        """All workers that ever sent a heartbeat to this queue, newest last.

        The `state` of one whose process is gone is ``"dead"``, and so is that of one that has
        not been heard of for 10 seconds (40 if it is on another machine).
        """
        workers = seen_now(await self._engine.stores.task_queue.workers())
        return sorted(workers, key=lambda info: info.started_at)

    async def release(self) -> None:
        """Let go of the launchers; what they launched lives on."""
        for _, launcher in self._launchers.values():
            await launcher.close()
        self._launchers.clear()

    async def _start_here(self, n: int, kind: str, queues: tuple[str, ...]) -> WorkerInfo:
        worker = self._workers.get((kind, queues))
        if worker is not None:
            worker.resize(n)
            return worker.info
        engine = self._engine
        make = maker(kind, engine.codec, engine.result_format, engine.bundles.fetch)
        worker = Worker(engine, make, queues, n)
        await worker.start()
        self._workers[kind, queues] = worker
        engine.workers.append(worker)
        self._ticker.start()
        return worker.info

    async def _stop_here(self, kind: str | None, drain: bool, timeout: float | None) -> None:
        stopping = [key for key in self._workers if kind in (None, key[0])]
        workers = [self._workers.pop(key) for key in stopping]
        if not self._workers:
            await self._ticker.stop()
        await asyncio.gather(*(worker.stop(drain=drain, timeout=timeout) for worker in workers))
        for worker in workers:
            self._engine.workers.remove(worker)

    async def _stop_launched(self, kind: str, drain: bool, timeout: float | None) -> None:
        launcher = await self._launcher(kind)
        started = time.monotonic()
        if drain:
            queues = {queue for order, _ in await launcher.find() for queue in order.queues}
            while queues and not await nothing_to_do(self._engine.stores.task_queue, queues):
                if timeout is not None and time.monotonic() - started >= timeout:
                    break
                await asyncio.sleep(PAUSE)
        left = None if timeout is None else max(0.0, started + timeout - time.monotonic())
        await launcher.stop(left)

    async def _launcher(self, kind: str, options: dict[str, object] | None = None) -> Launcher:
        """The launcher of this kind. One that was given options keeps them."""
        if kind in self._launchers:
            known, launcher = self._launchers[kind]
            if not options or options == known:
                return launcher
            await launcher.close()
            del self._launchers[kind]
        launcher = make_launcher(kind, self._engine, options or {})
        self._launchers[kind] = options or {}, launcher
        return launcher

    def _check_kind(self, kind: str) -> None:
        if kind not in EXECUTORS and kind not in LAUNCHERS:
            known = sorted({*EXECUTORS, *launcher_kinds()})
            if kind not in known:
                raise ConfigError("kind", kind, ", ".join(known), nearest(kind, known))
