-- Count up, never below a floor. KEYS: counter. ARGV: floor. Returns the new number as text.
local version = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])) + 1
local text = string.format('%.0f', version)
redis.call('SET', KEYS[1], text)
return text
