-- Enqueue tasks, all of them or none. Keys: those of keys.lua.
--
-- request[1]   places: a list of {queue, priority}
-- request[2]   whether a failed, cancelled or expired task of the same id is replaced
-- request[3]   whether some depend on others
-- ARGV[4...]   tasks: {rows, heads, calls}; a row is {id, number of its place, available_at,
--              standing}, where the map of the standing ends with the key seq and lacks the
--              value; heads and calls are flat lists of ids and what belongs to each
-- returns      one digit for each task: 1 added, 0 known already

local places, revive, depending
local digits, now = {}, seconds()
local seq, refused
local arrived = {} -- ids

local function accept(id)
  seq = seq + 1
  digits[#digits + 1] = 1
  arrived[#arrived + 1] = id
  return seq
end

local function refuse()
  digits[#digits + 1] = 0
  refused = true
end

-- Of the heads or calls of the latest rows, those that were accepted.
local function accepted(flat)
  local before, kept = #digits - #flat / 2, {}
  for i = 1, #flat, 2 do
    if digits[before + (i + 1) / 2] == 1 then
      kept[#kept + 1], kept[#kept + 2] = flat[i], flat[i + 1]
    end
  end
  return kept
end

-- Most tasks are new and wait for nobody: they are stored as they came.
local function add_plain(rows, stored)
  local standings, seen, n = {}, {}, 0 -- to count is quicker than to ask for a length
  for _, place in ipairs(places) do
    place.come, place.n = {}, 0
  end
  for i, row in ipairs(rows) do
    local id = row[1]
    if stored[i] or seen[id] then
      refuse()
    else
      seen[id] = true
      local number, place = accept(id), places[row[2]]
      local come, m = place.come, place.n
      standings[n + 1], standings[n + 2] = id, row[4] .. cmsgpack.pack(number)
      come[m + 1], come[m + 2] = row[3], member_of(id, number)
      n, place.n = n + 2, m + 2
    end
  end
  each('HSET', TASKS, standings)
  for _, place in ipairs(places) do
    if #place.come > 0 then
      local queue, priority = place[1], whole(place[2])
      each('ZADD', due_key(queue, priority), place.come)
      redis.call('ZADD', levels_key(queue), priority, priority)
      differ('queued:' .. queue, #place.come / 2)
      woken[queue] = true
    end
  end
end

-- Each task must see what became of the ones before it.
local function add_looking(rows, ids)
  known, counted = {}, {}
  load(ids)
  for _, row in ipairs(rows) do
    local id, old = row[1], known[row[1]]
    if old and not (revive and REQUEUEABLE[old.state]) then
      refuse()
    else
      local task = cmsgpack.unpack(row[4] .. cmsgpack.pack(accept(id)))
      task.token = old and old.token or nil
      known[id] = task
      change(id)
      admit(id, task, now)
    end
  end
  save()
end

local function enqueue_part(rows, heads, calls)
  local ids = {}
  for i, row in ipairs(rows) do
    ids[i] = row[1]
  end
  refused = false
  seq = redis.call('INCRBY', base .. ':seq', #rows) - #rows
  local stored, any = fetch(TASKS, ids), false
  for i = 1, #ids do
    any = any or stored[i]
  end
  if depending or revive and any then
    add_looking(rows, ids)
  else
    add_plain(rows, stored)
  end
  each('HSET', HEADS, refused and accepted(heads) or heads)
  each('HSET', CALLS, refused and accepted(calls) or calls)
end

-- Enqueue all. Then `count` and `wake` are due.
local function enqueue(request)
  places, revive, depending = unpack(request)
  for part = 4, #ARGV do
    enqueue_part(unpack(cmsgpack.unpack(ARGV[part])))
  end
  return table.concat(digits)
end
