-- Look at some tasks, and list which of them a worker holds. Keys: those of keys.lua.
--
-- request[1]   the cursor, '0' to begin
-- request[2]   about how many
-- request[3]   the worker
-- returns      {the next cursor, '0' at the end; for each task its id and token, in one flat list}

local cursor, number, worker = unpack(request)
local found = redis.call('HSCAN', TASKS, cursor, 'COUNT', number)
local claims = {}
for i = 1, #found[2], 2 do
  local packed = found[2][i + 1]
  if string.find(packed, worker, 1, true) then -- else there is no need to unpack it
    local task = cmsgpack.unpack(packed)
    if task.worker == worker and task.state == 'running' then
      claims[#claims + 1], claims[#claims + 2] = found[2][i], task.token
    end
  end
end
return { found[1], claims }
