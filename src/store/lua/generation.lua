-- Looks a generation up, and creates it if there is none and no fence stands.
--
-- KEYS[1]  the generation
-- ARGV[1]  its name if it must be created
-- ARGV[2]  milliseconds until the key expires, if it does not expire already; 0: it never does
--
-- Result   its name, or nil while a fence stands
local stood = redis.call('HKEYS', key)
if fenced(stood) then
  return nil
end
local name = #stood > 0 and token(redis.call('HGET', key, 'g'))
if name then
  return name
end
redis.call('HSET', key, 'g', ARGV[1])
-- In its last millisecond an expired fence's key still is there, with its ttl.
if ARGV[2] == '0' then
  redis.call('PERSIST', key)
elseif #stood == 0 or redis.call('PTTL', key) < 0 then
  redis.call('PEXPIRE', key, ARGV[2])
end
-- A read after the write, for the reason given in fill.lua.
return redis.call('HGET', key, 'g')
