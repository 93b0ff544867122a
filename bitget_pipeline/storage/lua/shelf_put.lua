-- Lay a page on the shelf. KEYS: the stretch (a hash). ARGV: 1 the moment before which it was asked for  2 the page  3 seconds to keep it
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
