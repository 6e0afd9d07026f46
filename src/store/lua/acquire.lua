-- Asks for the right to fill one value of an entry.
--
-- KEYS[1]  the entry
-- ARGV[1]  the value's field
-- ARGV[2]  the lease's field
-- ARGV[3]  the lease's token
-- ARGV[4]  milliseconds until others may take the lease over
-- ARGV[5]  milliseconds for which the lease is kept, so that a late fill still finds it
-- ARGV[6]  the first eight bytes of the value that was seen, or ''
-- ARGV[7]  '1' if that value stays until it is replaced, else it is outdated and deleted
--
-- Result   {'fenced'}        a write is under way
--          {'value', bytes}  there is a value, and it is not the one seen
--          {'busy', token}   another lease stands
--          {'granted'}       the lease is planted; also when it had been planted before
local stood = redis.call('HKEYS', key)
if fenced(stood) then
  return {'fenced'}
end

local value = #stood > 0 and redis.call('HGET', key, ARGV[1])
if value then
  if ARGV[6] == '' or string.sub(value, 1, 8) ~= ARGV[6] then
    return {'value', value}
  end
  if ARGV[7] ~= '1' then
    redis.call('HDEL', key, ARGV[1])
  end
end

local holder, deadline = lease(#stood > 0 and redis.call('HGET', key, ARGV[2]))
if deadline and holder ~= ARGV[3] then
  return {'busy', holder}
end
redis.call('HSET', key, ARGV[2], ARGV[3] .. ':' .. digits(now + tonumber(ARGV[4])))

-- No value must outlive its own ttl for the sake of a lease: not another build's, nor one that stays.
local left = #stood > 0 and redis.call('PTTL', key) or -1
local outdated = ARGV[7] ~= '1' and ARGV[1]
if left < 0 or (left < tonumber(ARGV[5]) and not holds_another_than(stood, outdated)) then
  redis.call('PEXPIRE', key, ARGV[5])
end
-- A read after the write, for the reason given in fill.lua: the entry may hold another build's value.
redis.call('HSTRLEN', key, ARGV[2])
return {'granted'}
