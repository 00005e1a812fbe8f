-- What the verbs of the task queue share: tasks are read once, changed here, and saved at the end.
-- What each verb means is said by omniq_nb/machine.py. Keys: those of keys.lua.

local STEP = 4000 -- values that one call is given at most: Lua's stack ends at 8000; an even number
local REQUEUEABLE = { failed = true, cancelled = true, expired = true }
local FINAL = { succeeded = true, failed = true, cancelled = true, expired = true }
local CANCELLED = 'TaskCancelled: cancelled'
local EXPIRED = 'TaskExpired: not started within its ttl'

-- Call a command with many values, in steps.
local function each(command, key, values)
  for first = 1, #values, STEP do
    redis.call(command, key, unpack(values, first, math.min(first + STEP - 1, #values)))
  end
end

local function fetch(hash, ids)
  local found = {}
  for first = 1, #ids, STEP do
    local part = redis.call('HMGET', hash, unpack(ids, first, math.min(first + STEP - 1, #ids)))
    for i = 1, #part do
      found[first + i - 1] = part[i]
    end
  end
  return found
end

-- ---------------------------------------------------------------- tasks in hand

local known = {} -- id -> where the task stands, false if there is none
local texts = {} -- id -> the same, as it is stored
local counted = {} -- id -> as what it is counted
local changed, is_changed = {}, {} -- ids
local woken = {} -- queues
local differences = {} -- state:queue -> how many more there are than COUNTS says

local function remember(id, packed)
  local task = packed and cmsgpack.unpack(packed)
  known[id], texts[id] = task, packed
  if task then
    counted[id] = task.state .. ':' .. task.queue
  end
  return task
end

local function load(ids)
  local missing = {}
  for _, id in ipairs(ids) do
    if known[id] == nil then
      missing[#missing + 1] = id
    end
  end
  local found = fetch(TASKS, missing)
  for i, id in ipairs(missing) do
    remember(id, found[i])
  end
end

local function find(id)
  local task = known[id]
  if task == nil then
    task = remember(id, redis.call('HGET', TASKS, id))
  end
  return task
end

local function change(id)
  if not is_changed[id] then
    is_changed[id] = true
    changed[#changed + 1] = id
  end
end

local function differ(field, number)
  differences[field] = (differences[field] or 0) + number
end

local function count()
  for field, number in pairs(differences) do
    if number ~= 0 and redis.call('HINCRBY', COUNTS, field, number) == 0 then
      redis.call('HDEL', COUNTS, field)
    end
  end
  differences = {}
end

-- Write what was changed, and put it where claims find it. Then `count` is due.
local function save()
  local fields, places = {}, {}
  for _, id in ipairs(changed) do
    local task = known[id]
    texts[id] = cmsgpack.pack(task)
    fields[#fields + 1], fields[#fields + 2] = id, texts[id]
    local before, now = counted[id], task.state .. ':' .. task.queue
    if before ~= now then
      if before then
        differ(before, -1)
      end
      differ(now, 1)
      counted[id] = now
    end
    local priority = whole(task.priority)
    local key = due_key(task.queue, priority)
    local place = places[key]
    if not place then
      place = { queue = task.queue, priority = priority, come = {}, gone = {} }
      places[key] = place
    end
    -- What was queued or running is there, and its level with it.
    place.new = place.new or not (before and string.find(before, '^[qr]'))
    local member, come, gone = member_of(id, task.seq), place.come, place.gone
    if task.state == 'queued' or task.state == 'running' then
      come[#come + 1], come[#come + 2] = task.available_at, member
    else
      gone[#gone + 1] = member
    end
    if task.state == 'queued' then
      woken[task.queue] = true
    end
  end
  each('HSET', TASKS, fields)
  for key, place in pairs(places) do
    each('ZREM', key, place.gone)
    each('ZADD', key, place.come)
    if #place.come > 0 and place.new then
      redis.call('ZADD', levels_key(place.queue), place.priority, place.priority)
    end
  end
  changed, is_changed = {}, {}
end

-- Tell those who wait that something may be due.
local function wake()
  for queue in pairs(woken) do
    redis.call('PUBLISH', base .. ':wake', queue)
  end
end

-- ---------------------------------------------------------------- dependencies

local anybody_waits -- whether any task is blocked: most queues never have one

local function distinct(ids)
  local seen, kept = {}, {}
  for _, id in ipairs(ids or {}) do
    if not seen[id] then
      seen[id] = true
      kept[#kept + 1] = id
    end
  end
  return kept
end

-- A blocked task waits no longer.
local function leave(id, task)
  redis.call('HDEL', UNMET, id)
  for _, needed in ipairs(distinct(task.depends_on)) do
    redis.call('ZREM', waiting_key(needed), id)
  end
end

-- Make a task final, and free or cancel the tasks that wait for it.
-- An error that names a task is completed in Python: here it is a zero byte and the id.
local function finish(id, state, at, error)
  local endings = { { id = id, state = state, error = error } }
  if anybody_waits == nil then
    anybody_waits = redis.call('EXISTS', UNMET) == 1
  end
  while #endings > 0 do
    local ending = table.remove(endings)
    local task = find(ending.id)
    if ending.id == id or task.state == 'blocked' then -- else it came twice, and is over by now
      if task.state == 'blocked' then
        leave(ending.id, task)
      end
      task.state, task.finished_at, task.error = ending.state, at, ending.error
      change(ending.id)
      local waiting = anybody_waits and redis.call('ZRANGE', waiting_key(ending.id), 0, -1) or {}
      for _, other in ipairs(waiting) do
        if ending.state ~= 'succeeded' then
          endings[#endings + 1] = { id = other, state = 'cancelled', error = '\0' .. ending.id }
        elseif redis.call('HINCRBY', UNMET, other, -1) <= 0 then
          local freed = find(other)
          leave(other, freed)
          freed.state = 'queued'
          change(other)
        end
      end
    end
  end
end

-- Queue a new or requeued task, or block or cancel it because of what it depends on.
local function admit(id, task, at)
  local needed, unmet = distinct(task.depends_on), 0
  load(needed)
  for _, other in ipairs(needed) do
    local state = known[other] and known[other].state
    if REQUEUEABLE[state] then
      return finish(id, 'cancelled', at, '\0' .. other)
    end
    if state ~= 'succeeded' then
      unmet = unmet + 1
    end
  end
  if unmet > 0 then
    task.state = 'blocked'
    anybody_waits = true
    redis.call('HSET', UNMET, id, unmet)
    for _, other in ipairs(needed) do
      redis.call('ZADD', waiting_key(other), task.seq, id)
    end
  end
end

-- ---------------------------------------------------------------- what is next

-- Seconds until the next task of these queues is due, perhaps negative; '' if there is none.
local function due_in(queues)
  local earliest
  for _, queue in ipairs(queues) do
    for _, priority in ipairs(redis.call('ZRANGE', levels_key(queue), 0, -1)) do
      local first = redis.call('ZRANGE', due_key(queue, priority), 0, 0, 'WITHSCORES')
      local at = tonumber(first[2])
      if at and (not earliest or at < earliest) then
        earliest = at
      end
    end
  end
  return earliest and string.format('%.6f', earliest - seconds()) or ''
end

-- ---------------------------------------------------------------- answers

-- The task that this claim holds, if it still does.
local function held(id, token)
  local task = find(id)
  return task and task.state == 'running' and task.token == token and task
end

-- Tasks as they are stored, each with its head and, for whoever runs it, its call: one flat list.
local function complete(ids, with_call)
  load(ids)
  local heads, rows = fetch(HEADS, ids), {}
  local calls = with_call and fetch(CALLS, ids)
  for i, id in ipairs(ids) do
    rows[#rows + 1], rows[#rows + 2] = texts[id], heads[i]
    if with_call then
      rows[#rows + 1] = calls[i]
    end
  end
  return rows
end
