"""What Redis can do at most: one Lua script that completes 64 tasks and claims the next 64."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import report, seconds
from redis import Redis

N = 64_000
SCRIPT = """
for i = 2, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[i])
  redis.call('ZREM', KEYS[3], ARGV[i])
end
local claimed = redis.call('ZPOPMIN', KEYS[1], 64)
local tasks = {}
for i = 1, #claimed, 2 do
  redis.call('ZADD', KEYS[3], ARGV[1], claimed[i])
  tasks[#tasks + 1] = claimed[i]
  tasks[#tasks + 1] = redis.call('HGET', KEYS[2], claimed[i])
end
return tasks
"""

redis = Redis.from_url(sys.argv[2])
due, calls, leases = (
    f"{{limit{time.monotonic_ns()}}}:{name}" for name in ("due", "calls", "lease")
)
with redis.pipeline(transaction=False) as pipe:
    for i in range(N):
        pipe.zadd(due, {f"task-{i}": i})
        pipe.hset(calls, f"task-{i}", b"x" * 200)
    pipe.execute()
step = redis.register_script(SCRIPT)


def work() -> None:
    tasks: list[bytes] = []
    while tasks := step([due, calls, leases], [time.time() + 30, *tasks[::2]]):
        pass


report(claim_and_complete=N / seconds(work))
