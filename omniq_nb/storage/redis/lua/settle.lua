-- Apply outcomes, and keep the results of those that were accepted.
-- Keys: those of keys.lua, results.lua and answers.lua.
--
-- request      outcomes: maps as of omniq_nb.models.task.Settle
-- ARGV[4...]   results: lists of {number of its outcome, row as results.lua has it}
-- returns      one digit for each outcome: 1 applied, 0 its claim is not the live one

local before = given()
if before then
  return before
end

local outcomes = request
local now, digits, ids = seconds(), {}, {}

local function apply(id, task, outcome)
  if outcome.to ~= 'queued' then
    task.started_at = outcome.started_at
    return finish(id, outcome.to, outcome.finished_at or now, outcome.error)
  end
  if outcome.released then
    task.attempt, task.started_at, task.available_at = task.attempt - 1, nil, now
  else
    task.started_at, task.finished_at = outcome.started_at, outcome.finished_at
    task.error, task.available_at = outcome.error, outcome.available_at or 0
  end
  task.state = 'queued'
  change(id)
end

for i, outcome in ipairs(outcomes) do
  ids[i] = outcome.id
end
load(ids)
for i, outcome in ipairs(outcomes) do
  local task = held(outcome.id, outcome.token)
  digits[i] = task and 1 or 0
  if task then
    apply(outcome.id, task, outcome)
  end
end
save()
count()
wake()
for part = 4, #ARGV do
  local accepted = {}
  for _, row in ipairs(cmsgpack.unpack(ARGV[part])) do
    if digits[row[1]] == 1 then
      accepted[#accepted + 1] = row[2]
    end
  end
  store(accepted, now)
end
return keep(table.concat(digits))
