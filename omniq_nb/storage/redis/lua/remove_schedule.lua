-- Delete a schedule. Keys: those of schedules.lua and answers.lua.
--
-- request[1]   its id
-- returns      1; 0 if it is unknown

local before = given()
if before then
  return before
end
redis.call('ZREM', FIRES, request[1])
return keep(redis.call('HDEL', SCHEDULES, request[1]))
