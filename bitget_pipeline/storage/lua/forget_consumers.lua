-- Remove the consumers of a group that hold nothing and have not asked for so long: those of runs that ended.
-- KEYS: stream. ARGV: group, least milliseconds of silence, 1 to only count. Returns how many there were.
-- In one step, because removing a consumer drops what it holds.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local there = false
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for i = 1, #group, 2 do
    if group[i] == 'name' and group[i + 1] == ARGV[1] then there = true end
  end
end
if not there then return 0 end
local ended = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
  if facts['pending'] == 0 and facts['idle'] >= tonumber(ARGV[2]) then
    ended = ended + 1
    if ARGV[3] ~= '1' then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts['name']) end
  end
end
return ended
