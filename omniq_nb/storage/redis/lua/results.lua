-- What settling and putting share: how a result is stored.
--
-- {omniq}:result:ID   string  the token as 13 hex digits, the length of the result without its
--                             payload as 8, the result, its payload; when it has been expired for
--                             an hour and nobody purged it, Redis deletes it
-- {omniq}:results     zset    task ids by finished_at; those without are at infinity
-- {omniq}:expires     zset    task ids by the time from which on they may be purged

local RESULTS, EXPIRES = KEYS[1] .. ':results', KEYS[1] .. ':expires'
local SPARE = 3600

local function result_key(id)
  return KEYS[1] .. ':result:' .. id
end

-- Each row is {task id, token, finished_at, expires_at or false, what is stored}.
local function store(rows, now)
  for _, row in ipairs(rows) do
    local id, token, finished_at, expires_at, result = unpack(row)
    local known = tonumber(redis.call('GETRANGE', result_key(id), 0, 12), 16)
    if not known or known <= token then
      redis.call('ZADD', RESULTS, finished_at, id)
      if expires_at then
        local milliseconds = (math.max(expires_at, now) + SPARE) * 1000
        redis.call('SET', result_key(id), result, 'PXAT', string.format('%.0f', milliseconds))
        redis.call('ZADD', EXPIRES, expires_at, id)
      else
        redis.call('SET', result_key(id), result)
        if known then
          redis.call('ZREM', EXPIRES, id)
        end
      end
    end
  end
end
