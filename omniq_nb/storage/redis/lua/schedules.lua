-- What the verbs of the schedule store share.
--
-- {omniq}:schedules   hash   id -> the version as 13 hex digits, then the schedule
-- {omniq}:fires       zset   ids of active schedules by their next fire time

local SCHEDULES, FIRES = KEYS[1] .. ':schedules', KEYS[1] .. ':fires'
local request = cmsgpack.unpack(ARGV[1])
