-- The repair has fetched everything of a symbol up to an id.
-- KEYS: fence, anchors. ARGV: fence, symbol, through id (20 digits). Returns 1 when no gap is left open, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
local text = redis.call('HGET', KEYS[2], ARGV[2])
if not text then return 1 end
local highest, after, before, opened = string.match(text, '^(%d*)|(%d*)|(%d*)|(%d*)$')
if after == '' then return 1 end
redis.call('HDEL', KEYS[2], ARGV[2]) -- first, because a full Redis lets it pass and then the rest (see lease_take.lua)
local through = ARGV[3]
if through > highest then highest = through end
if through >= before then
  redis.call('HSET', KEYS[2], ARGV[2], highest .. '|||')
  return 1
end
-- Another break widened the gap while the repair was under way, or the repair is not through yet: its beginning moves up.
if through > after then after = through end
redis.call('HSET', KEYS[2], ARGV[2], highest .. '|' .. after .. '|' .. before .. '|' .. opened)
return 0
