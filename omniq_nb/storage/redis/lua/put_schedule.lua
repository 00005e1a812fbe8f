-- Create or replace a schedule. Keys: those of schedules.lua and answers.lua.
--
-- request[1]   its id
-- request[2]   the version that is expected, as 13 hex digits
-- request[3]   the new version, as 13 hex digits, and the schedule
-- request[4]   when it fires next; false if it does not
-- returns      1; 0 if the stored version is another one

local before = given()
if before then
  return before
end
local id, expected, schedule, fires_at = unpack(request)
local stored = redis.call('HGET', SCHEDULES, id)
if (stored and string.sub(stored, 1, 13) or string.rep('0', 13)) ~= expected then
  return keep(0)
end
redis.call('HSET', SCHEDULES, id, schedule)
if fires_at then
  redis.call('ZADD', FIRES, fires_at, id)
else
  redis.call('ZREM', FIRES, id)
end
return keep(1)
