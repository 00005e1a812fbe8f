"""Workers inside a Dask cluster: each is a long task of Dask's, which its scheduler places.

So a worker takes one thread of a node; those for which there is none wait at the scheduler, which
is how an adaptive cluster learns that it should grow. When a node goes, the scheduler runs its
workers elsewhere; a worker that it has given up on, after several nodes died under it, is
replaced by its siblings, or by the client that launched it.

What the workers know of each other is in the scheduler's metadata, and tells no secret. Secrets
pass through the scheduler once, on their way to the nodes, which alone keep them.

Not here: the life of a worker (`omniq_nb.core.launch.serve`).
"""

# Parts of distributed have no types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import dask
import distributed
import msgspec
from distributed.core import Status

from omniq_nb.config import OmniQConfig
from omniq_nb.core.engine import Engine
from omniq_nb.core.launch.base import (
    Launcher,
    WorkerOrder,
    check_shared,
    portable,
    refuse_options,
)
from omniq_nb.core.launch.serve import Ending, Service
from omniq_nb.errors import ConfigError, OmniQError, WorkerLost
from omniq_nb.models.task import WorkerInfo

STARTING = 60.0
"""Seconds that the first worker has until it claims tasks."""

SETTLING = 5.0
"""Seconds for which `scale` waits for one more worker: there may be no thread for it yet."""

RELEASING = 10.0
"""Seconds that workers have to give back what they run, once they are told to."""

CONNECTING = 10.0
"""Seconds to wait for the scheduler."""

LOOK = 0.5
"""Seconds between two looks at what the scheduler knows."""

PAUSE = 0.05
"""Seconds between two such looks while somebody waits."""

ARRIVING = 100
"""How often is looked whether the scheduler knows a worker that it was sent."""

DURATION = "1 day"
"""What the scheduler is told that a worker takes: so it wants a thread for each."""

PREFIX = "omniq"

LIVING = frozenset({"waiting", "no-worker", "queued", "processing"})
"""The states of a task of Dask's that will run, or runs."""

log = logging.getLogger("omniq_nb.launch")


class Errand(msgspec.Struct, kw_only=True):
    """What a worker is told. It holds secrets, and is never shown.

    Attributes
    ----------
    identity : str
        Of the configuration.
    config : dict
        As `OmniQConfig.to_dict` has it, with nothing left to the environment.
    key : bytes
        The project's.
    """

    identity: str
    config: dict[str, Any]
    key: bytes

    def __repr__(self) -> str:
        return f"<Errand {self.identity}>"


Scattered: TypeAlias = "distributed.Future[Errand]"
"""An errand that nodes have."""


class Job(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A worker as the scheduler's metadata describe it.

    Attributes
    ----------
    order : WorkerOrder
        What it was asked to do.
    info : WorkerInfo or None
        As it describes itself, as soon as it claims tasks.
    node : str
        The address of the node where it does.
    over : bool
        It has ended as it should.
    trouble : str
        Why it could not start.
    """

    order: WorkerOrder
    info: WorkerInfo | None = None
    node: str = ""
    over: bool = False
    trouble: str = ""


class Board:
    """What the workers of one configuration, and its clients, know by way of the scheduler.

    Parameters
    ----------
    client : distributed.Client
        Asynchronous, of the running loop.
    identity : str
        The configuration's.
    """

    def __init__(self, client: distributed.Client, identity: str) -> None:
        self._client = client
        self._identity = identity

    def locked(self) -> distributed.Lock:
        """Let nobody else scale these workers meanwhile."""
        rpc, loop = self._client.scheduler, self._client.loop
        return distributed.Lock(f"{PREFIX}-{self._identity}", scheduler_rpc=rpc, loop=loop)

    async def write(self, name: str, job: Job | None) -> None:
        """Describe a worker. None: forget it."""
        keys = [PREFIX, self._identity, "jobs", name]
        await self._client.set_metadata(keys, msgspec.to_builtins(job))

    async def jobs(self) -> dict[str, Job]:
        """All workers that are described."""
        found = await self._read("jobs")
        return {name: msgspec.convert(job, Job) for name, job in found.items() if job is not None}

    async def dismiss(self, name: str, times: int) -> None:
        """Ask a worker to finish what it runs and to end; the second time, to end at once."""
        await self._client.set_metadata([PREFIX, self._identity, "dismissed", name], times)

    async def dismissed(self) -> dict[str, int]:
        """How often each worker was asked to end."""
        return await self._read("dismissed")

    async def living(self) -> dict[str, Job]:
        """Those that run, or will run."""
        jobs = await self.jobs()
        states = await self._states(jobs)
        return {name: job for name, job in jobs.items() if states[name] and not job.over}

    async def ready(self) -> dict[str, Job]:
        """Those that claim tasks."""
        living = await self.living()
        running = await self._client.processing()
        return {
            name: job
            for name, job in living.items()
            if job.info is not None and key_of(name) in running.get(job.node, ())
        }

    async def launch(self, name: str, order: WorkerOrder, errand: Scattered) -> None:
        """Have the scheduler run a worker, whatever becomes of this client."""
        future = self._client.submit(work, errand, name, order, key=key_of(name), pure=False)
        distributed.fire_and_forget(future)
        # Described before the scheduler knows it, it would be taken for a lost one.
        for _ in range(ARRIVING):
            if (await self._states([name]))[name] or name in await self.jobs():
                break
            await asyncio.sleep(PAUSE)
        if name not in await self.jobs():
            await self.write(name, Job(order=order))

    async def replace_the_lost(self, scatter: Callable[[], Awaitable[Scattered]]) -> None:
        """Launch others in the place of those that neither live nor ended as they should.

        Whoever does it does the same: the other one's name is made of the lost one's.

        Parameters
        ----------
        scatter : callable
            Gives the nodes the errand. What is given is held no longer than needed: a node with
            data is not idle.
        """
        errand: Scattered | None = None
        jobs, dismissed = await self.jobs(), await self.dismissed()
        states = await self._states(jobs)
        for name, job in jobs.items():
            # One that could not start would not start again.
            if states[name] or job.over or job.trouble or name in dismissed:
                continue
            log.warning("the Dask worker %s is lost: another takes its place", name)
            first, _, number = name.partition(".")
            errand = await scatter() if errand is None else errand
            await self.launch(f"{first}.{int(number or 0) + 1}", job.order, errand)
            await self.write(name, None)

    async def forget_the_dead(self) -> None:
        """Forget those that are over."""
        jobs = await self.jobs()
        states = await self._states(jobs)
        for name in jobs:
            if not states[name]:
                await self.write(name, None)

    async def _states(self, jobs: Iterable[str]) -> dict[str, bool]:
        keys = [key_of(name) for name in jobs]
        scheduler: Any = self._client.scheduler
        states = await scheduler.get_task_status(keys=keys)
        return {name: states[key_of(name)] in LIVING for name in jobs}

    async def _read(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._client.get_metadata(
            [PREFIX, self._identity, what], default={}
        )
        return found


class DaskLauncher(Launcher):
    """Launches workers through the scheduler of an existing Dask cluster.

    Parameters
    ----------
    engine : Engine
        The client's inside.
    options : mapping
        `address` of the scheduler, or a `client` that is connected to it; without either,
        ``DASK_SCHEDULER_ADDRESS``.
    """

    kind: ClassVar[str] = "dask"

    def __init__(self, engine: Engine, options: Mapping[str, object]) -> None:
        options = dict(options)
        address, client = options.pop("address", None), options.pop("client", None)
        refuse_options(self.kind, options)
        security = None
        if isinstance(client, distributed.Client):
            address, security = client.scheduler_info()["address"], client.security
        elif client is not None:
            raise ConfigError("client", client, "a distributed.Client")
        address = address or dask.config.get("scheduler-address", None)
        if not isinstance(address, str):
            allowed = 'the address of a Dask scheduler, "tcp://host:8786"; or client=Client(...)'
            raise ConfigError("address", address, allowed)
        self._engine = engine
        self._address = address
        self._security = security
        self._client: distributed.Client | None = None
        self._tending: asyncio.Task[None] | None = None

    async def find(self) -> list[tuple[WorkerOrder, WorkerInfo]]:
        """See `Launcher`."""
        ready = await (await self._board()).ready()
        return [(job.order, job.info) for job in ready.values() if job.info is not None]

    async def scale(self, order: WorkerOrder, n: int) -> list[WorkerInfo]:
        """See `Launcher`. Those for which there is no thread yet are not among the answers."""
        check_shared(self._engine.config, self.kind)
        board = await self._board()
        kept: list[str] = []
        async with board.locked():
            await board.forget_the_dead()
            dismissed = await board.dismissed()
            for name, job in (await board.living()).items():
                if job.order == order and name not in dismissed and len(kept) < n:
                    kept.append(name)
                elif job.order.queues == order.queues:
                    await board.dismiss(name, 1)
            errand = await self._scattered() if len(kept) < n else None
            while errand is not None and len(kept) < n:
                name = f"{int(time.time() * 1000):011x}{secrets.token_hex(3)}"
                await board.launch(name, order, errand)
                kept.append(name)
            del errand
        if self._tending is None:
            self._tending = asyncio.create_task(self._tend(board), name="omniq dask")
        return await self._started(board, kept)

    async def stop(self, timeout: float | None) -> None:
        """See `Launcher`."""
        board = await self._board()
        ends_at = math.inf if timeout is None else time.monotonic() + timeout
        for times in (1, 2):
            while living := await board.living():
                dismissed = await board.dismissed()
                for name, job in living.items():
                    if job.info is None:
                        await self._withdraw(board, name, job)
                    elif dismissed.get(name, 0) < times:
                        await board.dismiss(name, times)
                if time.monotonic() >= ends_at:
                    break
                await asyncio.sleep(PAUSE)
            ends_at = time.monotonic() + RELEASING
        if living:
            nodes = ", ".join(sorted({job.node for job in living.values()}))
            raise WorkerLost(f"{len(living)} Dask workers do not end, on {nodes}: restart these")
        await board.forget_the_dead()

    async def close(self) -> None:
        """Disconnect. The workers are the scheduler's."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        if self._client is not None:
            await self._client.close()

    # ---------------------------------------------------------------- inside

    async def _board(self) -> Board:
        if self._client is None:
            try:
                self._client = await distributed.Client(
                    self._address,
                    security=self._security,
                    timeout=CONNECTING,
                    asynchronous=True,
                    set_as_default=False,
                    name="omniq",
                )
            except (OSError, ValueError) as error:
                allowed = f"the address of a Dask scheduler that answers ({error})"
                raise ConfigError("address", self._address, allowed) from None
        return Board(self._client, self._engine.identity)

    async def _scattered(self) -> Scattered:
        """Give the nodes what workers must know."""
        ends_at = time.monotonic() + STARTING
        while True:
            try:
                return await self._scatter()
            except OSError as error:  # the node that was there has gone meanwhile
                if time.monotonic() > ends_at:
                    raise WorkerLost(
                        f"nodes of the Dask cluster go as they come: {error}"
                    ) from None

    async def _scatter(self) -> Scattered:
        client = self._client
        assert client is not None
        setting = {f"distributed.scheduler.default-task-durations.{PREFIX}": DURATION}
        await client.run_on_scheduler(dask.config.set, setting)
        scheduler: Any = client.scheduler
        if not (await scheduler.identity())["workers"]:
            # An adaptive cluster has no node before there is something to do.
            await client.submit(int, pure=False, key=f"start-{secrets.token_hex(8)}")
        engine = self._engine
        errand = Errand(identity=engine.identity, config=portable(engine), key=engine.codec.key)
        scattered: Scattered = await client.scatter(errand, broadcast=True, hash=False)
        return scattered

    async def _started(self, board: Board, names: list[str]) -> list[WorkerInfo]:
        ends_at, count = time.monotonic() + STARTING, 0
        while True:
            jobs = await board.jobs()
            for name in names:
                if name in jobs and jobs[name].trouble:
                    await board.dismiss(name, 1)
                    raise WorkerLost(f"a Dask worker could not start: {jobs[name].trouble}")
            ready = await board.ready()
            infos = [job.info for name, job in ready.items() if job.info and name in names]
            if len(infos) > count:
                ends_at, count = time.monotonic() + SETTLING, len(infos)
            ended = [name for name in names if name not in jobs or jobs[name].over]
            if len(infos) + len(ended) >= len(names):
                return infos
            if time.monotonic() > ends_at:
                if infos:
                    return infos
                raise WorkerLost(
                    f"no Dask worker has started within {STARTING:.0f} s: is there a node with "
                    f"omniq_nb and a free thread? They start as soon as there is one"
                )
            await asyncio.sleep(PAUSE)

    async def _withdraw(self, board: Board, name: str, job: Job) -> None:
        """Take back a worker that may not have been given a thread yet."""
        assert self._client is not None
        await board.dismiss(name, 1)
        future: distributed.Future[None] = distributed.Future(key_of(name), self._client)
        await self._client.cancel([future], force=True)

    async def _tend(self, board: Board) -> None:
        while True:
            await asyncio.sleep(LOOK)
            with contextlib.suppress(OSError):  # the scheduler is away: the client reconnects
                await board.replace_the_lost(self._scattered)


def key_of(name: str) -> str:
    """The key of a worker's task: Dask takes what is before the first number for its kind."""
    return f"{PREFIX}-{name}"


def work(errand: Errand, name: str, order: WorkerOrder) -> None:
    """Be a worker, as a task of Dask's."""
    asyncio.run(_Node(errand, name, order).serve())


class _Node:
    """One worker on its node.

    Parameters
    ----------
    errand, name, order
        What it was told.
    """

    def __init__(self, errand: Errand, name: str, order: WorkerOrder) -> None:
        self._errand = errand
        self._name = name
        self._order = order
        self._node = distributed.get_worker()
        self._service: Service | None = None
        self._info: WorkerInfo | None = None
        self._over = False
        self._dismissed = 0

    async def serve(self) -> None:
        """Work until it is over."""
        node = self._node
        async with distributed.Client(
            node.scheduler.address,
            security=node.security,
            asynchronous=True,
            set_as_default=False,
            name="omniq",
        ) as client:
            board = Board(client, self._errand.identity)
            tending = asyncio.create_task(self._tend(client, board))
            job = Job(order=self._order, node=node.address)
            try:
                while await self._serve_once() is Ending.SPENT and not self._dismissed:
                    log.info("the Dask worker %s begins anew", self._name)
                # When its node goes, it is not over, and another takes its place.
                job.over = node.status is Status.running
            except OmniQError as error:
                job.trouble = f"{type(error).__name__}: {error}"
            finally:
                tending.cancel()
                await asyncio.wait([tending])
                await board.write(self._name, job)

    async def _serve_once(self) -> Ending:
        config = OmniQConfig.from_dict(self._errand.config)
        self._service = Service(
            config, self._order, DaskLauncher.kind, on_tick=self._tick, key=self._errand.key
        )
        return await self._service.run()

    def _tick(self, info: WorkerInfo) -> None:
        self._info = info

    async def _tend(self, client: distributed.Client, board: Board) -> None:
        """Heed who dismisses it, say that it is there, and replace lost siblings."""
        while True:
            with contextlib.suppress(OSError):  # the scheduler is away: the client reconnects
                if self._info is not None:
                    known = (await board.jobs()).get(self._name)
                    if known is None or known.node != self._node.address or known.info is None:
                        job = Job(order=self._order, info=self._info, node=self._node.address)
                        await board.write(self._name, job)
                self._heed((await board.dismissed()).get(self._name, 0))
                await board.replace_the_lost(
                    lambda: client.scatter(self._errand, broadcast=True, hash=False)
                )
            if self._node.status is not Status.running:
                self._heed(2)
            await asyncio.sleep(LOOK)

    def _heed(self, times: int) -> None:
        while self._service is not None and self._dismissed < times:
            self._dismissed += 1
            self._service.stop()
