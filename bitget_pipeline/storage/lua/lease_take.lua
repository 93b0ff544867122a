-- Take the lease unless another owner holds it. KEYS: fence, lease. ARGV: owner, time to live in ms.
-- Returns {1, fence} or {0, holder, ms left}. Whoever takes it gets a new fence, also the same owner again: of two processes
-- under one name the later one counts.
-- A full Redis refuses a script's first write unless it frees memory; so the first one is a DEL, and whoever is to empty the stream
-- gets the lease.
local holder = redis.call('HGET', KEYS[2], 'owner')
if holder and holder ~= ARGV[1] then
  return { 0, holder, redis.call('PTTL', KEYS[2]) }
end
local time = redis.call('TIME')
-- Never below the server's clock in microseconds: a Redis that lost its last second must not hand out a number twice.
local clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
local fence = string.format('%.0f', math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1, clock))
local now = string.format('%.0f', math.floor(clock / 1000))
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], fence)
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'fence', fence, 'taken_ms', now, 'renewed_ms', now)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return { 1, fence }
