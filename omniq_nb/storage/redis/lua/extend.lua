-- Keep leases, or end them. Keys: those of keys.lua.
--
-- request[1]   claims: a list of {id, token}
-- request[2]   seconds from now on
-- returns      one digit for each claim: 1 kept, 0 not the live one

local claims, lease = unpack(request)
local ends_at, digits, ids = seconds() + lease, {}, {}
for i, claim in ipairs(claims) do
  ids[i] = claim[1]
end
load(ids)
for i, claim in ipairs(claims) do
  local task = held(claim[1], claim[2])
  digits[i] = task and 1 or 0
  if task then
    task.available_at = ends_at
    change(claim[1])
    if lease <= 0 then
      woken[task.queue] = true
    end
  end
end
save()
wake()
return table.concat(digits)
