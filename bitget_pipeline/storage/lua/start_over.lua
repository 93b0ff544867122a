-- The start of a run is over: forget what it said of it. KEYS: start. ARGV: run. Returns 1 if it was that run's, else 0.
local said = redis.call('GET', KEYS[1])
if not said or cjson.decode(said)['run_id'] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
