-- Enqueue tasks, then lease what is due to a worker that waits in the same process: what is leased
-- at once is never counted as queued, and nobody else need hear of it.
--
-- request[1]   as in adding.lua
-- request[2]   as in claiming.lua
-- returns      what each of them returns

if before then
  return { before[1], still_held(before[2]) }
end

local added = enqueue(request[1])
local ids, tokens = lease(request[2])
local taken, left = {}, 0
for _, id in ipairs(ids) do
  taken[id] = true
end
for _, id in ipairs(arrived) do
  left = left + (taken[id] and 0 or 1)
end
if left > 0 then -- else there is nothing for others
  wake()
end
keep({ added, tokens })
return { added, leased(request[2], ids) }
