-- Tell which version of the keys is there; the first one to ask decides it.
--
-- KEYS[1]            the prefix in braces, {omniq}
-- {omniq}:version    string   the version of the layout of all these keys
-- ARGV[1]            request[1]: the version that the caller knows
-- returns            the stored version

local VERSION = KEYS[1] .. ':version'
redis.call('SET', VERSION, cmsgpack.unpack(ARGV[1])[1], 'NX')
return redis.call('GET', VERSION)
