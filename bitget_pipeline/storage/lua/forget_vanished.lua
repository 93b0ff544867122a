-- Acknowledge what is pending and not in the stream any more. KEYS: stream. ARGV: group. Returns how many there were.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local gone, from = 0, '-'
while true do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', 1000)
  for _, pending in ipairs(found) do
    if #redis.call('XRANGE', KEYS[1], pending[1], pending[1]) == 0 then
      gone = gone + redis.call('XACK', KEYS[1], ARGV[1], pending[1])
    end
  end
  if #found < 1000 then return gone end
  from = '(' .. found[#found][1]
end
