-- Acknowledge entries of the group. KEYS: fence, stream. ARGV: fence, group, ids. Returns how many were pending.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
local acknowledged = 0
for first = 3, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  acknowledged = acknowledged + redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, first, last))
end
return acknowledged
