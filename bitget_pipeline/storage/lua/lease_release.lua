-- Give the lease back. KEYS: fence, lease. ARGV: fence. Returns 1 if it was ours, else 0.
if redis.call('HGET', KEYS[2], 'fence') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
return 1
