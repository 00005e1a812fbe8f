-- Tell when the next task is due. Keys: those of tasks.lua.
--
-- request[1]   queues
-- returns      seconds from now, perhaps negative; '' if there is no task

local earliest
for _, queue in ipairs(request[1]) do
  for _, priority in ipairs(redis.call('ZRANGE', levels_key(queue), 0, -1)) do
    local first = redis.call('ZRANGE', due_key(queue, priority), 0, 0, 'WITHSCORES')
    local at = tonumber(first[2])
    if at and (not earliest or at < earliest) then
      earliest = at
    end
  end
end
return earliest and string.format('%.6f', earliest - seconds()) or ''
