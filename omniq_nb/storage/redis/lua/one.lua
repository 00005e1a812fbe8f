-- The common case of add_claim.lua, done before the rest of its program is even set up: one new
-- task, for the only queue that the worker serves, where nothing else is due.

local before = given()

-- Enqueue and lease it. Nil: it is another case, and nothing was done.
local function add_and_lease_one(adding, claiming)
  local places, _, depending = unpack(adding)
  local queues, limit, lease, worker = unpack(claiming)
  local queue, priority = places[1][1], whole(places[1][2])
  if depending or #ARGV > 4 or #places > 1 or #queues > 1 or queues[1] ~= queue or limit < 1 then
    return
  end
  local rows, heads, calls = unpack(cmsgpack.unpack(ARGV[4]))
  local id, now = rows[1][1], seconds()
  if #rows > 1 or redis.call('HEXISTS', TASKS, id) == 1 then
    return
  end
  local task = cmsgpack.unpack(rows[1][4] .. cmsgpack.pack(0))
  if task.available_at > now or task.expires_at and task.expires_at <= now then
    return
  end
  local next_at, level_known = now + lease, false
  for _, level in ipairs(redis.call('ZRANGE', levels_key(queue), 0, -1)) do
    local at = tonumber(redis.call('ZRANGE', due_key(queue, level), 0, 0, 'WITHSCORES')[2])
    if at and at <= now then
      return
    end
    next_at = math.min(next_at, at or next_at)
    level_known = level_known or level == priority
  end

  task.seq = redis.call('INCRBY', base .. ':seq', 1)
  task.state, task.token, task.attempt, task.worker = 'running', 1, 1, worker
  task.started_at, task.available_at = now, now + lease
  local standing = cmsgpack.pack(task)
  redis.call('HSET', TASKS, id, standing)
  redis.call('HSET', HEADS, id, heads[2])
  redis.call('HSET', CALLS, id, calls[2])
  redis.call('ZADD', due_key(queue, priority), task.available_at, member_of(id, task.seq))
  if not level_known then
    redis.call('ZADD', levels_key(queue), priority, priority)
  end
  redis.call('HINCRBY', COUNTS, 'running:' .. queue, 1)
  keep({ '1', { id, 1 } })
  return { '1', { { standing, heads[2], calls[2] }, string.format('%.6f', next_at - now) } }
end

local done = not before and add_and_lease_one(unpack(request))
if done then
  do return done end
end
