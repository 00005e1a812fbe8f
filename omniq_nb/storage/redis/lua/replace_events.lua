-- Replace pages of events by what is left of them.
--
-- KEYS[1]           the prefix in braces, {omniq}
-- {omniq}:events    zset   pages (omniq_nb/storage/redis/events.py), all with score 0, so that they
--                          are ordered as texts are
-- ARGV[1]           request[1]: a list of {page, what is left of it or ''}
-- returns           one digit for each page: 1 replaced, 0 it was gone already

local EVENTS = KEYS[1] .. ':events'
local digits = {}
for i, page in ipairs(cmsgpack.unpack(ARGV[1])[1]) do
  digits[i] = redis.call('ZREM', EVENTS, page[1])
  if digits[i] == 1 and page[2] ~= '' then
    redis.call('ZADD', EVENTS, 0, page[2])
  end
end
return table.concat(digits)
