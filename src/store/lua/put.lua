-- Stores a value that was not loaded, in place of all that stands under the key, unless a fence does.
--
-- KEYS[1]  the entry
-- ARGV[1]  the value's field
-- ARGV[2]  the value
-- ARGV[3]  milliseconds until the value expires
-- ARGV[4]  what the field must hold for it: '*' anything, '' nothing, else a value that begins with these
--          eight bytes
--
-- Result   1  stored
--          0  superseded: the field holds something else, or a fence stands
local stood = fields()
if fenced(stood) then
  return 0
end
if ARGV[4] ~= '*' then
  local value = redis.call('HGET', key, ARGV[1])
  if string.sub(value or '', 1, 8) ~= ARGV[4] or (value and ARGV[4] == '') then
    return 0
  end
end
redis.call('HSET', key, ARGV[1], ARGV[2])
clear(stood, nil, ARGV[1])
redis.call('PEXPIRE', key, ARGV[3])
-- A read after the write, for the reason given in fill.lua.
redis.call('HSTRLEN', key, ARGV[1])
return 1
