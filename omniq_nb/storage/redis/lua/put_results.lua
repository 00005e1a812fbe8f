-- Keep results. Keys: those of results.lua.
--
-- ARGV[4...]   rows as results.lua has them

local time = redis.call('TIME')
for part = 4, #ARGV do
  store(cmsgpack.unpack(ARGV[part]), time[1] + time[2] / 1000000)
end
