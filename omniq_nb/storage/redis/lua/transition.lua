-- Move tasks by hand. Keys: those of keys.lua.
--
-- request[1]   ids
-- request[2]   cancelled, queued or expired
-- returns      the state of each afterwards, '' if it is unknown

local ids, to = unpack(request)
local now, states = seconds(), {}

local function requeue(id, task)
  task.state, task.attempt, task.lost = 'queued', nil, nil
  task.available_at, task.expires_at = now, nil -- who requeues by hand wants it run
  task.started_at, task.finished_at, task.error = nil, nil, nil
  change(id)
  admit(id, task, now)
end

load(ids)
for i, id in ipairs(ids) do
  local task = known[id]
  if task then
    local is_late = task.expires_at and task.expires_at <= now
    if to == 'cancelled' and not FINAL[task.state] then
      if task.state == 'running' then
        task.token = task.token + 1 -- what its worker still says is stale from now on
      end
      finish(id, 'cancelled', now, CANCELLED)
    elseif to == 'expired' and is_late and (task.state == 'queued' or task.state == 'blocked') then
      finish(id, 'expired', now, EXPIRED)
    elseif to == 'queued' and REQUEUEABLE[task.state] then
      requeue(id, task)
    end
  end
  states[i] = task and task.state or ''
end
save()
count()
wake()
return states
