-- What the task queue keeps, and how its keys are spelt.
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
local DIGITS = 13 -- of a number of arrival

local request = cmsgpack.unpack(ARGV[1])

local moment

-- The time, the same all along.
local function seconds()
  if not moment then
    local time = redis.call('TIME')
    moment = time[1] + time[2] / 1000000
  end
  return moment
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
