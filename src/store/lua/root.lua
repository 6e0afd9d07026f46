-- Looks the root generation up. It changes when this server is not the one that it was recorded
-- on: then the data may be an old snapshot, or lack the last writes of a failed primary.
--
-- KEYS[1]  the root generation: a hash of its name 'g' and of the 'run' it was recorded under
-- ARGV[1]  the server's run_id
-- ARGV[2]  its name if it must be created
-- ARGV[3]  its name if it is merely missing (evicted, FLUSHALL), or '' if that is not known
--
-- Result   its name
local name = ARGV[2]
local kind = redis.call('TYPE', key).ok
if kind == 'hash' then
  local known = token(redis.call('HGET', key, 'g'))
  if known and redis.call('HGET', key, 'run') == ARGV[1] then
    return known
  end
elseif kind == 'none' and ARGV[3] ~= '' then
  name = ARGV[3]
end
if kind ~= 'hash' then
  redis.call('DEL', key)
end
redis.call('HSET', key, 'g', name, 'run', ARGV[1])
redis.call('PERSIST', key)
return name
