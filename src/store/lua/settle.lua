-- Deletes the entry's values, leases and generation and the writer's own fence, also when that
-- fence had expired: values may have been filled since. Runs with allow-oom, like fence.lua.
--
-- KEYS[1]  the entry or generation
-- ARGV[1]  the fence's field
--
-- Result   1
clear(ARGV[1])
return 1
