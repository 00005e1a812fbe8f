-- Delete some results. Keys: those of results.lua.
--
-- ARGV[1]   request[1]: expires or results: by which of the two sets
--           request[2]: the end of the range of scores to delete
--           request[3]: how many at most
-- returns   how many were deleted

local set, range, number = unpack(cmsgpack.unpack(ARGV[1]))
local gone = redis.call('ZRANGEBYSCORE', KEYS[1] .. ':' .. set, '-inf', range, 'LIMIT', 0, number)
for _, id in ipairs(gone) do
  redis.call('UNLINK', result_key(id))
  redis.call('ZREM', RESULTS, id)
  redis.call('ZREM', EXPIRES, id)
end
return #gone
