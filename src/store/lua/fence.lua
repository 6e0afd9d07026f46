-- Deletes the values, leases and generation of entries and plants the writer's fence in each, or renews it.
-- Runs with allow-oom: a full server must not refuse an invalidation.
--
-- KEYS     the entries and generations
-- ARGV[1]  the fence's field
-- ARGV[2]  milliseconds until the fence expires
--
-- Result   1
local deadline = now + tonumber(ARGV[2])
local until_then = digits(deadline)
for _, each in ipairs(KEYS) do
  key = each
  local stood = fields()
  redis.call('HSET', key, ARGV[1], until_then)
  local last = clear(stood, ARGV[1], ARGV[1])
  redis.call('PEXPIREAT', key, last > deadline and digits(last) or until_then)
end
return 1
