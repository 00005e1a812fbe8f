"""dbos on PostgreSQL: drain by one process. It stores results, as we do."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from dbos import DBOS, DBOSClient
from measure import report

url = sys.argv[2]
N = 4_000

CONFIG = {
    "name": "bench",
    "system_database_url": url,
    "run_admin_server": False,
    "log_level": "ERROR",
    "application_version": "1",
}
left = threading.Semaphore(0)


@DBOS.workflow()
def nothing(i: int) -> int:
    left.release()
    return i


DBOS(config=CONFIG)
DBOS.launch()
DBOS.register_queue("bench", polling_interval_sec=0.05)
DBOS.destroy()

client = DBOSClient(system_database_url=url)
for i in range(N):
    client.enqueue({"queue_name": "bench", "workflow_name": "nothing", "app_version": "1"}, i)

DBOS(config=CONFIG)
start = time.perf_counter()
DBOS.launch()
for _ in range(N):
    left.acquire()
while client.list_queued_workflows():
    time.sleep(0.002)
rate = N / (time.perf_counter() - start)
DBOS.destroy()
report(drain=rate)
