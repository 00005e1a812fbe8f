"""Results as a dict."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

from omniq_nb.models.result import Result
from omniq_nb.models.task import Claim
from omniq_nb.storage.base import ResultStore
from omniq_nb.storage.memory.rows import MemoryStore

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryResultStore(MemoryStore[Result], ResultStore):
    """Results by task id; see `omniq_nb.storage.base.ResultStore`."""

    time = "finished_at"

    async def put(self, results: Sequence[Result]) -> None:
        """Keep the newest of each task."""
        self._check_open()
        with self._lock:
            for result in results:
                known = self._rows.get(result.task_id)
                if known is None or known.token <= result.token:
                    self._rows[result.task_id] = copy(result)

    async def get(self, claims: Sequence[Claim]) -> list[Result | None]:
        """Look each up."""
        self._check_open()
        with self._lock:
            found = [self._rows.get(claim.id) for claim in claims]
        return [
            copy(result) if result is not None and result.token == claim.token else None
            for claim, result in zip(claims, found, strict=True)
        ]

    async def purge(self, now: float, before: float | None = None) -> int:
        """Look at each."""
        self._check_open()
        with self._lock:
            gone = [
                result.task_id
                for result in self._rows.values()
                if (result.expires_at is not None and result.expires_at <= now)
                or (
                    before is not None
                    and result.finished_at is not None
                    and result.finished_at < before
                )
            ]
            for task_id in gone:
                del self._rows[task_id]
        return len(gone)

    def _table(self, rows: Sequence[Result], columns: Sequence[str] | None) -> "pa.Table":
        from omniq_nb.storage.tables import RESULTS, select, table

        return table(rows, select(RESULTS, columns))
