-- Read the schedules that fire. Keys: those of schedules.lua.
--
-- request[1]   now
-- request[2]   how many at most
-- returns      schedules, earliest first

local ids = redis.call('ZRANGEBYSCORE', FIRES, '-inf', request[1], 'LIMIT', 0, request[2])
local found = {}
for i, id in ipairs(ids) do
  found[i] = redis.call('HGET', SCHEDULES, id)
end
return found
