-- Read some tasks, in no order. Keys: those of keys.lua.
--
-- request[1]   the cursor, '0' to begin
-- request[2]   about how many
-- returns      {the next cursor, '0' at the end; for each task {standing, head}, in one flat list}

local found = redis.call('HSCAN', TASKS, request[1], 'COUNT', request[2])
local ids = {}
for i = 1, #found[2], 2 do
  ids[#ids + 1] = found[2][i]
  remember(found[2][i], found[2][i + 1])
end
return { found[1], complete(ids, false) }
