"""Bundles on their way between codec and queue: each is put once, and fetched once by a process.

Not here: what they are (`omniq_nb.codec.bundles`), and how long they are kept
(`omniq_nb.storage.base.TaskQueue`).
"""

import asyncio
import time

from omniq_nb.codec.bundles import Bundles, Shelf
from omniq_nb.errors import PayloadError, StoreClosed, StoreError
from omniq_nb.storage.base import BUNDLE_KEPT, TaskQueue

AT_HAND = 256 << 20
"""Bytes of bundles that a process keeps for tasks to come."""

PUT_AGAIN = BUNDLE_KEPT / 4
"""Seconds after which a bundle is put again, so that it stays until its tasks are added."""

PATIENCE = 30.0
"""Seconds for which a store in trouble is asked again."""


class BundleStore:
    """The bundles of one client and its workers.

    Parameters
    ----------
    queue : TaskQueue
        Where they are kept.
    """

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._put_at: dict[str, float] = {}
        self._at_hand: Shelf[bytes] = Shelf(AT_HAND)
        self._coming: dict[str, asyncio.Task[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Bind to the running loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Let nobody wait any longer."""
        for coming in self._coming.values():
            coming.cancel()

    async def put(self, bundles: Bundles) -> None:
        """Store those that this process has not stored lately."""
        for name, payload in bundles.payloads.items():
            now = time.monotonic()
            if now - self._put_at.get(name, -PUT_AGAIN) >= PUT_AGAIN:
                await self._queue.put_bundle(name, payload)
                self._put_at[name] = now

    def fetch(self, name: str) -> bytes:
        """Give a bundle's signed payload. From any thread but the loop's, which it waits for.

        Raises
        ------
        PayloadError
            It is not stored any more.
        StoreError
            It could not be read.
        """
        payload = self._at_hand.get(name)
        if payload is None:
            assert self._loop is not None
            payload = asyncio.run_coroutine_threadsafe(self._bring(name), self._loop).result()
        return payload

    async def _bring(self, name: str) -> bytes:
        """Read it, once for all that want it at the same time."""
        coming = self._coming.get(name)
        if coming is None:
            coming = self._coming[name] = asyncio.create_task(self._read(name))
            coming.add_done_callback(lambda _: self._coming.pop(name))
        return await asyncio.shield(coming)

    async def _read(self, name: str) -> bytes:
        ends_at, pause = time.monotonic() + PATIENCE, 0.1
        while True:
            try:
                payload = await self._queue.get_bundle(name)
                break
            except StoreClosed:
                raise
            except StoreError:
                if time.monotonic() + pause > ends_at:
                    raise
                await asyncio.sleep(pause)
                pause *= 2
        if payload is None:
            raise PayloadError(
                f"the bundle {name}, which holds data that the task's call refers to, is not "
                f"stored any more. Submit the call again"
            )
        self._at_hand.put(name, payload, len(payload))
        return payload
