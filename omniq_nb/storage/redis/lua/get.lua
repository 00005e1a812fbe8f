-- Read tasks. Keys: those of keys.lua.
--
-- request[1]   ids
-- returns      for each task {standing, head}, in one flat list; twice nothing if it is unknown

return complete(request[1], false)
