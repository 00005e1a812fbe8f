-- Enqueue tasks: see adding.lua.

local before = given()
if before then
  return before
end

local added = enqueue(request)
count()
wake()
return keep(added)
