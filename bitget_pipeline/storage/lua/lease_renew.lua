-- Renew the lease of a fence. KEYS: fence, lease. ARGV: fence, owner, time to live in ms.
-- A lease that ran out and that nobody took since is given back: the fence says that there was no successor.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
redis.call('PEXPIRE', KEYS[2], ARGV[3]) -- first, because a full Redis lets it pass and then the rest (see lease_take.lua)
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSETNX', KEYS[2], 'taken_ms', now)
redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'fence', ARGV[1], 'renewed_ms', now)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
