-- Tell when the next task is due. Keys: those of keys.lua.
--
-- request[1]   queues
-- returns      seconds from now, perhaps negative; '' if there is no task

return due_in(request[1])
