"""Tasks whose worker died: another one, of the same machine, ends their leases.

Else they would wait until these are over. Which tasks a worker holds, only the queue knows.

Not here: who counts as dead in tables, where a heartbeat must do (`omniq_nb.liveness`).
"""

import logging
import time
from collections.abc import Iterable

from omniq_nb.liveness import lives_here
from omniq_nb.models.task import WorkerInfo
from omniq_nb.storage.base import TaskQueue

log = logging.getLogger("omniq_nb.worker")


class Orphans:
    """What one worker does for the tasks of others.

    Parameters
    ----------
    queue : TaskQueue
        Theirs, and its own.
    lease : float
        Seconds that their leases last after a heartbeat.
    """

    def __init__(self, queue: TaskQueue, lease: float) -> None:
        self._queue = queue
        self._lease = lease
        self._done: set[str] = set()

    async def look(self, me: WorkerInfo, workers: Iterable[WorkerInfo]) -> None:
        """End the leases of those workers that died of late, unless another worker will.

        One does it for all of a machine: the one with the smallest id.
        """
        known_since = time.time() - self._lease
        dead = []
        for info in workers:
            if info.state == "stopped" or info.heartbeat_at < known_since:
                continue
            lives = lives_here(info)
            if lives and info.id < me.id:
                return
            if lives is False and info.id not in self._done:
                dead.append(info)
        for info in dead:
            claims = await self._queue.held_by(info.id)
            ended = sum(await self._queue.extend(claims, 0.0))
            self._done.add(info.id)
            if ended:
                log.warning("worker %s died, its tasks are due again: %d", info.id, ended)
