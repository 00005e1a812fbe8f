-- What makes it harmless to send a command again when its answer was lost on the way.
--
-- A client has a few slots, and one command at a time in each. A slot keeps the answer to its
-- latest command: who repeats that command is given the same answer, and nothing is done again.
-- A command that was overtaken by the next one of its slot comes too late: nobody waits for it.
--
-- KEYS[1]   the prefix in braces, {omniq}: with it all keys begin
-- ARGV[1]   the request, as MessagePack
-- ARGV[2]   the client and its slot
-- ARGV[3]   the number of the command in this slot
--
-- {omniq}:answer:SLOT   string   the number, a space, the answer as MessagePack; for some minutes

local ANSWER, KEPT = KEYS[1] .. ':answer:' .. ARGV[2], 600

-- The answer that this very command was given before; nil if it was never carried out.
local function given()
  local text = redis.call('GET', ANSWER)
  if text then
    local gap = string.find(text, ' ', 1, true)
    local number = tonumber(string.sub(text, 1, gap - 1))
    if number > tonumber(ARGV[3]) then
      error('this command was overtaken by a later one')
    elseif number == tonumber(ARGV[3]) then
      return cmsgpack.unpack(string.sub(text, gap + 1))
    end
  end
end

local function keep(answer)
  redis.call('SET', ANSWER, ARGV[3] .. ' ' .. cmsgpack.pack(answer), 'EX', KEPT)
  return answer
end
