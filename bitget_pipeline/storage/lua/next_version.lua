-- Count up, never below a floor. KEYS: counter. ARGV: floor, 1 to begin where there is no counter.
-- Returns the new number as text, nil when there is no counter and it is not to begin.
local counted = redis.call('GET', KEYS[1])
if not counted and ARGV[2] ~= '1' then
    return nil
end
local version = math.max(tonumber(counted or '0'), tonumber(ARGV[1])) + 1
local text = string.format('%.0f', version)
redis.call('SET', KEYS[1], text)
return text
