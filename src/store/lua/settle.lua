-- Deletes the values, leases and generation of entries and the writer's own fence in each, also when that
-- fence had expired: values may have been filled since. Runs with allow-oom, like fence.lua.
--
-- KEYS     the entries and generations
-- ARGV[1]  the fence's field
--
-- Result   1
for _, each in ipairs(KEYS) do
  key = each
  clear(fields(), ARGV[1])
end
return 1
