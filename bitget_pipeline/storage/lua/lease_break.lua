-- Take the lease away from an owner who is known to be dead, and fence it off at once in case it is not.
-- KEYS: fence, lease. ARGV: owner. Returns 1 if that owner held it, else 0.
if redis.call('HGET', KEYS[2], 'owner') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], string.format('%.0f', tonumber(redis.call('GET', KEYS[1]) or '0') + 1))
return 1
