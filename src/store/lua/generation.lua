-- Looks a generation up, and creates it if there is none and no fence stands.
--
-- KEYS[1]  the generation
-- ARGV[1]  its name if it must be created
--
-- Result   its name, or nil while a fence stands
if fenced() then
  return nil
end
local name = token(redis.call('HGET', key, 'g'))
if name then
  return name
end
redis.call('HSET', key, 'g', ARGV[1])
-- A generation stands until it is fenced. In its last millisecond an expired fence's key still is
-- there, with its ttl.
redis.call('PERSIST', key)
-- A read after the write, for the reason given in fill.lua.
return redis.call('HGET', key, 'g')
