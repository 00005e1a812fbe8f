-- Lease due tasks to a worker: see claiming.lua.

local before = given()
if before then
  return still_held(before)
end

local ids, tokens = lease(request)
keep(tokens)
return leased(request, ids)
