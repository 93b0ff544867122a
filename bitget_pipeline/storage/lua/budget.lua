-- The shared budget of requests of one egress address. guard/rate_limit.py is the model of this; a property test holds them equal.
-- KEYS: budget (a hash). ARGV:
--   1 what: ask, restrain, penalise, succeeded or remaining   2 now in seconds, or '' for the server's clock   3 endpoint   4 its limit per second
--   5 the priority's floor   6 1 for a backfill   7 seconds (penalise, restrain) or requests left (remaining)
--   8 the rules, parted by |: share, burst, per minute, global burst, slow_down, slowest, recover_by, recover_every,
--     persistent_after, same_run_within, global_closure, and the backfill's ceiling per second or none
-- Returns the seconds to wait, as text; '0' from ask: the request is taken.
local key, what, endpoint = KEYS[1], ARGV[1], ARGV[3]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local per_second, value = tonumber(ARGV[4]), tonumber(ARGV[7])
local rules = {}
for part in string.gmatch(ARGV[8], '[^|]+') do rules[#rules + 1] = tonumber(part) or false end
local share, burst, per_minute, global_burst, slow_down, slowest, recover_by, recover_every, persistent_after,
  same_run_within, global_closure, ceiling = unpack(rules)
local LEEWAY, BARRED_LOOKS = 1e-9, 2

local function text(number) return string.format('%.17g', number) end

local function load(field, wanted)
  local values = {}
  local stored = redis.call('HGET', key, field)
  if stored then
    for part in string.gmatch(stored, '[^|]+') do values[#values + 1] = tonumber(part) end
  end
  if #values < wanted then return nil end
  return values
end

local function fill(bucket)
  bucket.tokens = math.min(bucket.capacity, bucket.tokens + math.max(0, now - bucket.at) * bucket.rate * bucket.pace)
  bucket.at = math.max(bucket.at, now)
end

local function wait_of(bucket, floor)
  local missing = 1 + floor * (bucket.capacity - 1) - bucket.tokens
  if missing > LEEWAY then return missing / (bucket.rate * bucket.pace) end
  return 0
end

local restrained = { rate = 0, pace = 1, capacity = 1, tokens = 1, at = now, till = now }
local values = load('restraint', 4)
if values then
  restrained.rate, restrained.tokens, restrained.at, restrained.till = values[1], values[2], values[3], values[4]
end

local function save_restraint()
  redis.call('HSET', key, 'restraint', table.concat({
    text(restrained.rate), text(restrained.tokens), text(restrained.at), text(restrained.till) }, '|'))
end

if what == 'restrain' then
  if restrained.till <= now then restrained.tokens, restrained.at = 1, now end
  fill(restrained)
  restrained.rate, restrained.till = per_second, now + value
  save_restraint()
  redis.call('EXPIRE', key, 86400)
  return '0'
end

local rate = share * per_second
local known = { rate = rate, capacity = math.max(1, math.min(burst, per_second - rate + 0.75)) }
local stored = load('endpoint:' .. endpoint, 7)
if stored then
  known.tokens, known.at, known.pace = stored[1], stored[2], stored[3]
  known.closed_until, known.busy_since, known.busy_until, known.slowed_at = stored[4], stored[5], stored[6], stored[7]
else
  known.tokens, known.at, known.pace = known.capacity, now, 1
  known.closed_until, known.busy_since, known.busy_until, known.slowed_at = 0, 0, -1e300, 0
end
local closed_until = tonumber(redis.call('HGET', key, 'closed_until') or '0')

local function save()
  redis.call('HSET', key, 'endpoint:' .. endpoint, table.concat({
    text(known.tokens), text(known.at), text(known.pace), text(known.closed_until),
    text(known.busy_since), text(known.busy_until), text(known.slowed_at) }, '|'))
  redis.call('EXPIRE', key, 86400)
end

if what == 'penalise' then
  fill(known)
  if now > known.busy_until then known.busy_since = now end
  local overtaken = now < known.closed_until
  known.closed_until = math.max(known.closed_until, now + value)
  known.busy_until = known.closed_until + same_run_within
  if not overtaken then known.pace = math.max(slowest, known.pace * slow_down) end
  known.tokens = math.min(known.tokens, 0)
  known.slowed_at = now
  if now - known.busy_since >= persistent_after then
    redis.call('HSET', key, 'closed_until', text(math.max(closed_until, now + global_closure)))
  end
  redis.call('HINCRBY', key, 'penalties:' .. endpoint, 1)
  save()
  return '0'
end

if what == 'succeeded' then
  known.busy_until = -1e300
  save()
  return '0'
end

if what == 'remaining' then
  fill(known)
  known.tokens = math.min(known.tokens, value > 0 and value or -1)
  save()
  return '0'
end

local closed = math.max(closed_until, known.closed_until) - now
local held_back = ARGV[6] == '1' and restrained.till > now
if held_back and restrained.rate <= 0 then closed = math.max(closed, math.min(restrained.till - now, BARRED_LOOKS)) end
if closed > 0 then
  if not stored then save() end
  return text(closed)
end

local steps = math.floor((now - known.slowed_at) / recover_every)
if steps > 0 and known.pace < 1 then
  fill(known)
  known.pace = math.min(1, known.pace + steps * recover_by)
  known.slowed_at = known.slowed_at + steps * recover_every
end

local function shared(field, its_rate, its_capacity)
  local bucket = { field = field, rate = its_rate, capacity = its_capacity, pace = 1 }
  local values = load(field, 2)
  bucket.tokens, bucket.at = its_capacity, now
  if values then bucket.tokens, bucket.at = values[1], values[2] end
  return bucket
end

local buckets = { known, shared('all', share * per_minute / 60, global_burst) }
if ARGV[6] == '1' and ceiling then buckets[3] = shared('backfill', ceiling, 1) end
if held_back then buckets[#buckets + 1] = restrained end
local wait, floor = 0, tonumber(ARGV[5])
for _, bucket in ipairs(buckets) do
  fill(bucket)
  wait = math.max(wait, wait_of(bucket, floor))
end
if wait == 0 then
  for _, bucket in ipairs(buckets) do bucket.tokens = bucket.tokens - 1 end
  redis.call('HINCRBY', key, 'granted:' .. endpoint, 1)
end
for i = 2, #buckets do
  if buckets[i].field then redis.call('HSET', key, buckets[i].field, text(buckets[i].tokens) .. '|' .. text(buckets[i].at)) end
end
if held_back then save_restraint() end
save()
return text(wait)
