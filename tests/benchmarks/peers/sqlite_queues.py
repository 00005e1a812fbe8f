"""localqueue, litequeue and persist-queue on SQLite: enqueue, and drain in one thread."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import litequeue
import localqueue
import persistqueue
from measure import report, seconds

folder = Path(sys.argv[1])
N = 5_000
BULK = 50_000


def local() -> dict[str, float]:
    queue = localqueue.SimpleQueue(str(folder / "local.db"))

    def drain() -> None:
        for _ in range(N):
            queue.ack(queue.get_nowait())

    single = N / seconds(lambda: [queue.put({"i": i}) for i in range(N)])
    rate = N / seconds(drain)
    bulk = BULK / seconds(lambda: queue.put_many([{"i": i} for i in range(BULK)]))
    return {"enqueue": single, "drain": rate, "bulk": bulk}


def lite() -> dict[str, float]:
    queue = litequeue.LiteQueue(str(folder / "lite.db"))

    def drain() -> None:
        while (message := queue.pop()) is not None:
            queue.done(message.message_id)

    single = N / seconds(lambda: [queue.put(f'{{"i": {i}}}') for i in range(N)])
    return {"enqueue": single, "drain": N / seconds(drain)}


def persist() -> dict[str, float]:
    queue = persistqueue.SQLiteAckQueue(str(folder / "persist"), auto_commit=True)

    def drain() -> None:
        for _ in range(N):
            queue.ack(queue.get(block=False))

    single = N / seconds(lambda: [queue.put({"i": i}) for i in range(N)])
    return {"enqueue": single, "drain": N / seconds(drain)}


report(localqueue=local(), litequeue=lite(), persistqueue=persist())
