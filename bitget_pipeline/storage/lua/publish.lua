-- Say how a live run goes, instead of what was said before. KEYS: fence, state. ARGV: fence, seconds it is kept, then field and
-- value of each. Only whoever has the newest fence may: the words of a run that was replaced would hide those of its successor.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
redis.call('DEL', KEYS[2]) -- first, because a full Redis lets it pass and then the rest (see lease_take.lua)
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
