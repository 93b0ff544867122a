-- Take one connection of an address's allowance. KEYS: attempts (a sorted set by time). ARGV: most, within ms, a name of this attempt,
-- most of one second.
-- Returns 0 when it may be opened, else the milliseconds to wait before asking again.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return math.max(1, tonumber(oldest[2]) + tonumber(ARGV[2]) - now)
end
local before = redis.call('ZREVRANGE', KEYS[1], tonumber(ARGV[4]) - 1, tonumber(ARGV[4]) - 1, 'WITHSCORES')
if before[2] and tonumber(before[2]) > now - 1000 then
  return math.max(1, tonumber(before[2]) + 1000 - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
