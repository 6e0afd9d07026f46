-- Gives a lease back without a fill, if it still stands.
--
-- KEYS[1]  the entry
-- ARGV[1]  the lease's field
-- ARGV[2]  the lease's token
--
-- Result   1
if lease(redis.call('HGET', key, ARGV[1])) == ARGV[2] then
  redis.call('HDEL', key, ARGV[1])
  -- A read after the write, for the reason given in fill.lua: the entry may hold another build's value.
  redis.call('HSTRLEN', key, ARGV[1])
end
return 1
