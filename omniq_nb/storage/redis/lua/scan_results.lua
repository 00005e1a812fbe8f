-- Read some results in the order in which they finished. Keys: those of results.lua.
--
-- ARGV[1]   request[1]: the last task id of the part before, '' to begin
--           request[2]: its score then; to begin, the time since when
--           request[3]: the time until when
--           request[4]: how many at most
--           request[5]: about how many bytes at most
-- returns   {1 if there may be more; the last task id; its score; the results without payloads}

local after, since, ends, number, most_bytes = unpack(cmsgpack.unpack(ARGV[1]))
local first
if after ~= '' and redis.call('ZSCORE', RESULTS, after) == since then
  first = redis.call('ZRANK', RESULTS, after) + 1
else
  -- The beginning; or that one is gone, and some of the same moment are read again.
  first = redis.call('ZCOUNT', RESULTS, '-inf', '(' .. since)
end
local found = redis.call('ZRANGE', RESULTS, first, first + number - 1, 'WITHSCORES')
local rows, bytes, more = {}, 0, 0
for i = 1, #found, 2 do
  more = 0
  if tonumber(found[i + 1]) > ends then
    break
  end
  after, since, more = found[i], found[i + 1], 1
  local row = redis.call('GETRANGE', result_key(after), 0, 1999)
  local length = tonumber(string.sub(row, 14, 21), 16)
  if length then -- else Redis deleted it
    if #row < 21 + length then
      row = redis.call('GETRANGE', result_key(after), 0, 20 + length)
    end
    rows[#rows + 1] = string.sub(row, 1, 21 + length)
    bytes = bytes + #row
  end
  if bytes > most_bytes then
    break
  end
end
return { more, after, since, rows }
