-- Deletes the entry's values, leases and generation and plants the writer's fence, or renews it.
-- Runs with allow-oom: a full server must not refuse an invalidation.
--
-- KEYS[1]  the entry or generation
-- ARGV[1]  the fence's field
-- ARGV[2]  milliseconds until the fence expires
--
-- Result   1
local deadline = now + tonumber(ARGV[2])
if redis.call('TYPE', key).ok ~= 'hash' then
  redis.call('DEL', key)
end
redis.call('HSET', key, ARGV[1], digits(deadline))
local last = clear(ARGV[1], ARGV[1])
redis.call('PEXPIREAT', key, digits(math.max(last, deadline)))
return 1
