-- The workers by their last heartbeats.
--
-- KEYS[1]            the prefix in braces, {omniq}
-- {omniq}:workers    hash   id -> a MessagePack map as of omniq_nb.models.task.WorkerInfo
-- ARGV[1]            request[1]: {id, worker} of the one that beats; false if none does
--                    request[2]: those that beat last before that time are forgotten; false: none
-- returns            the workers that are left

local WORKERS = KEYS[1] .. ':workers'
local beat, before = unpack(cmsgpack.unpack(ARGV[1]))
if beat then
  redis.call('HSET', WORKERS, beat[1], beat[2])
end
if before then
  local all = redis.call('HGETALL', WORKERS)
  for i = 1, #all, 2 do
    if (cmsgpack.unpack(all[i + 1]).heartbeat_at or 0) < before then
      redis.call('HDEL', WORKERS, all[i])
    end
  end
end
return redis.call('HVALS', WORKERS)
