-- Drop what every group has done with: below the least of each group's oldest pending entry, else its last delivered + 1.
-- (Redis 6.2 trims pending entries too when told to, measured; so the bound is computed here.)
-- KEYS: stream. Returns how many entries were dropped; without a group nothing is.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local least_ms, least_seq
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local facts = {}
  for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
  local ms, seq
  if facts['pending'] > 0 then
    ms, seq = string.match(redis.call('XPENDING', KEYS[1], facts['name'])[2], '^(%d+)-(%d+)$')
    seq = tonumber(seq)
  else
    ms, seq = string.match(facts['last-delivered-id'], '^(%d+)-(%d+)$')
    seq = tonumber(seq) + 1
  end
  ms = tonumber(ms)
  if not least_ms or ms < least_ms or (ms == least_ms and seq < least_seq) then
    least_ms, least_seq = ms, seq
  end
end
if not least_ms then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f-%.0f', least_ms, least_seq))
