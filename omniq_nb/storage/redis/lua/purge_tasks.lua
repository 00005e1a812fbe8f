-- Look at some tasks, and forget those that are over since long. Keys: those of keys.lua.
--
-- request[1]   the cursor, '0' to begin
-- request[2]   about how many
-- request[3]   what finished before that time is forgotten
-- returns      {the next cursor, '0' at the end; how many were forgotten}

local cursor, number, before = unpack(request)
local found = redis.call('HSCAN', TASKS, cursor, 'COUNT', number)
local gone = {}
for i = 1, #found[2], 2 do
  local id, task = found[2][i], cmsgpack.unpack(found[2][i + 1])
  if FINAL[task.state] and task.finished_at < before
    and redis.call('EXISTS', waiting_key(id)) == 0
  then
    gone[#gone + 1] = id
    differ(task.state .. ':' .. task.queue, -1)
  end
end
for _, hash in ipairs({ TASKS, HEADS, CALLS }) do
  each('HDEL', hash, gone)
end
count()
return { found[1], #gone }
