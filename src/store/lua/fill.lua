-- Stores a value if its lease still stands and no fence does, and gives the lease back. A lease
-- that has passed its deadline still stands while nobody has taken it over.
--
-- KEYS[1]  the entry
-- ARGV[1]  the value's field
-- ARGV[2]  the lease's field
-- ARGV[3]  the lease's token
-- ARGV[4]  the value
-- ARGV[5]  milliseconds until the value expires
--
-- Result   1  stored
--          0  superseded: the lease was gone, or a fence stood
if lease(redis.call('HGET', key, ARGV[2])) ~= ARGV[3] then
  return 0
end
local stood = redis.call('HKEYS', key)
if fenced(stood) then
  redis.call('HDEL', key, ARGV[2])
  return 0
end

local ttl = tonumber(ARGV[5])
if holds_another_than(stood, ARGV[1]) then
  local left = redis.call('PTTL', key)
  if left >= 0 and left < ttl then
    ttl = math.max(left, 1)
  end
end
redis.call('HSET', key, ARGV[1], ARGV[4])
-- Only now: a key without a field is gone, and see `clear` in prelude.lua.
redis.call('HDEL', key, ARGV[2])
redis.call('PEXPIRE', key, digits(ttl))
-- Under CLIENT TRACKING ... NOLOOP only a read after the write lets the filler hear of the key.
redis.call('HSTRLEN', key, ARGV[1])
return 1
