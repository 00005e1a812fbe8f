-- Lease due tasks to a worker, or end those whose time or luck is over.
-- Keys: those of keys.lua.
--
-- request[1]   queues, in the order in which they are asked
-- request[2]   how many at most
-- request[3]   seconds that the leases last
-- request[4]   the worker
-- request[5]   a task that took so many workers down is over
-- request[6]   its error
-- returns      for each task {standing, head, call}, in one flat list; then, if all that is due
--              was leased, when the next one will be, as due_in.lua tells it

-- What a lost answer spoke of is still this worker's, unless somebody took it away since.
local function still_held(before)
  local ids = {}
  for i = 1, #before, 2 do
    local task = find(before[i])
    if task and (task.token or 0) == before[i + 1]
      and (task.state == 'running' or FINAL[task.state])
    then
      ids[#ids + 1] = before[i]
    end
  end
  return { complete(ids, true), false }
end

local function pick(queues, limit, now)
  local ids = {}
  for _, queue in ipairs(distinct(queues)) do
    local levels = #ids < limit and redis.call('ZREVRANGE', levels_key(queue), 0, -1) or {}
    for _, priority in ipairs(levels) do
      local room = limit - #ids
      if room > 0 then
        local key = due_key(queue, priority)
        local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, room)
        for _, member in ipairs(due) do
          ids[#ids + 1] = string.sub(member, DIGITS + 1)
        end
        if #due == 0 and redis.call('EXISTS', key) == 0 then
          redis.call('ZREM', levels_key(queue), priority)
        end
      end
    end
  end
  return ids
end

-- The ids of what was leased or ended, and a flat list of the same with their tokens.
local function lease(request)
  local queues, limit, seconds_of_lease, worker, most_lost, lost_error = unpack(request)
  local now = seconds()
  local ids, tokens = pick(queues, limit, now), {}
  load(ids)
  for _, id in ipairs(ids) do
    local task = known[id]
    local was_running = task.state == 'running'
    if was_running then
      task.lost = (task.lost or 0) + 1
    end
    if was_running and task.lost >= most_lost then
      finish(id, 'failed', now, lost_error)
    elseif task.expires_at and task.expires_at <= now then
      finish(id, 'expired', now, EXPIRED)
    else
      task.state = 'running'
      task.token = (task.token or 0) + 1
      task.attempt = (task.attempt or 0) + 1
      task.worker, task.started_at, task.finished_at = worker, now, nil
      task.available_at = now + seconds_of_lease
      change(id)
    end
    tokens[#tokens + 1], tokens[#tokens + 2] = id, task.token or 0
  end
  save()
  count()
  return ids, tokens
end

local function leased(request, ids)
  local queues, limit = unpack(request)
  return { complete(ids, true), #ids < limit and due_in(queues) }
end
