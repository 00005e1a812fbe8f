-- What the verbs of the task queue share: tasks are read once, changed here, and saved at the end.
-- What each verb means is said by omniq_nb/machine.py.
--
-- {omniq}:tasks        hash    id -> where the task stands: a MessagePack map of the fields that
--                              the queue changes, and of those it decides by; what is 0 is left out
-- {omniq}:heads        hash    id -> what was asked for, but for the call: a MessagePack map too
-- {omniq}:calls        hash    id -> the call
-- {omniq}:due:P:Q      zset    queued and running tasks of queue Q and priority P, by available_at,
--                              then by arrival: a member is its number as hex digits, then the id
-- {omniq}:levels:Q     zset    the priorities in use in queue Q
-- {omniq}:waiting:ID   zset    the blocked tasks that wait for the task ID, by arrival
-- {omniq}:unmet        hash    id of a blocked task -> how many tasks it still waits for
-- {omniq}:counts       hash    state:queue -> number of tasks
-- {omniq}:seq          string  the number of the last arrival
-- {omniq}:bundle:NAME  string  what calls refer to; no script reads it
-- {omniq}:bundles      zset    the names of all bundles, by when they were put last
-- {omniq}:wake         channel the names of queues in which something may be due

local base = KEYS[1]
local TASKS, HEADS, CALLS = base .. ':tasks', base .. ':heads', base .. ':calls'
local UNMET, COUNTS = base .. ':unmet', base .. ':counts'
local STEP = 4000 -- values that one call is given at most: Lua's stack ends at 8000; an even number
local DIGITS = 13 -- of a number of arrival
local REQUEUEABLE = { failed = true, cancelled = true, expired = true }
local FINAL = { succeeded = true, failed = true, cancelled = true, expired = true }
local CANCELLED = 'TaskCancelled: cancelled'
local EXPIRED = 'TaskExpired: not started within its ttl'

local request = cmsgpack.unpack(ARGV[1])

local function seconds()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

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

local function whole(number)
  return string.format('%.0f', number)
end

local function levels_key(queue)
  return base .. ':levels:' .. queue
end

local function due_key(queue, priority)
  return base .. ':due:' .. priority .. ':' .. queue
end

local function waiting_key(id)
  return base .. ':waiting:' .. id
end

local function member_of(id, seq)
  return string.format('%013x', seq) .. id
end

-- ---------------------------------------------------------------- tasks in hand

local known = {} -- id -> where the task stands, false if there is none
local texts = {} -- id -> the same, as it is stored
local counted = {} -- id -> as what it is counted
local changed, is_changed = {}, {} -- ids
local woken = {} -- queues

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

local function count(differences)
  for field, number in pairs(differences) do
    if number ~= 0 and redis.call('HINCRBY', COUNTS, field, number) == 0 then
      redis.call('HDEL', COUNTS, field)
    end
  end
end

-- Write what was changed, and put it where claims find it.
local function save()
  local fields, differences, places = {}, {}, {}
  for _, id in ipairs(changed) do
    local task = known[id]
    texts[id] = cmsgpack.pack(task)
    fields[#fields + 1], fields[#fields + 2] = id, texts[id]
    local before, now = counted[id], task.state .. ':' .. task.queue
    if before ~= now then
      if before then
        differences[before] = (differences[before] or 0) - 1
      end
      differences[now] = (differences[now] or 0) + 1
      counted[id] = now
    end
    local priority = whole(task.priority)
    local key = due_key(task.queue, priority)
    local place = places[key]
    if not place then
      place = { queue = task.queue, priority = priority, come = {}, gone = {} }
      places[key] = place
    end
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
    if #place.come > 0 then
      redis.call('ZADD', levels_key(place.queue), place.priority, place.priority)
    end
  end
  count(differences)
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
