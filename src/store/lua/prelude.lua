-- Stands before every script of this folder: the entry, the time, and how its fields are read.
-- A script for several entries goes from one to the next with `key`.
--
-- An entry is one hash:
--   v:<fingerprint>  a value
--   l:<fingerprint>  a lease, '<token>:<deadline>'
--   f:<token>        a writer's fence: its deadline
--   g                a generation's name: a token
-- A token is 16 hex digits, a fingerprint 11 letters of base64, a deadline milliseconds of this
-- server's clock. What cannot be read so counts as gone.
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function digits(number)
  return string.format('%.0f', number)
end

-- The token, or nil.
local function token(text)
  if text and #text == 16 and string.find(text, '^%x+$') and text ~= '0000000000000000' then
    return text
  end
end

-- The deadline if it has not passed, or nil.
local function ahead(text)
  if text and #text <= 15 and string.find(text, '^%d+$') and tonumber(text) > now then
    return tonumber(text)
  end
end

-- The token of a lease and its deadline, or nil; the deadline is nil too if it has passed.
local function lease(text)
  local holder, deadline = string.match(text or '', '^(%x+):(%d+)$')
  if token(holder) then
    return holder, ahead(deadline)
  end
end

-- Whether one of these fields is a fence that stands. Removes those that have expired: other
-- writers may keep the key alive for much longer than a crashed writer's fence may stand.
local function fenced(stood)
  local stands = false
  for _, field in ipairs(stood) do
    if string.sub(field, 1, 2) == 'f:' then
      if ahead(redis.call('HGET', key, field)) then
        stands = true
      else
        redis.call('HDEL', key, field)
      end
    end
  end
  return stands
end

-- Whether one of these fields is a value other than `field`.
local function holds_another_than(stood, field)
  for _, other in ipairs(stood) do
    if string.sub(other, 1, 2) == 'v:' and other ~= field then
      return true
    end
  end
  return false
end

-- Names the entry's fields. A key of a foreign type is deleted whole, so that garbage never costs an
-- invalidation.
local function fields()
  local found = redis.pcall('HKEYS', key)
  if not found.err then
    return found
  end
  if string.find(found.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', key)
    return {}
  end
  return redis.call('HKEYS', key)
end

-- Deletes of these fields all but the standing fences of writers other than `own`, and `kept`; and the
-- key if nothing is left. Answers when the last of those fences expires, 0 without any.
--
-- What stays is never deleted first and written again: while a cluster moves the key's slot, a key that
-- is gone cannot be written here any more.
local function clear(stood, own, kept)
  local last, gone = 0, {}
  for _, field in ipairs(stood) do
    local deadline = nil
    if string.sub(field, 1, 2) == 'f:' and field ~= own then
      deadline = ahead(redis.call('HGET', key, field))
    end
    if deadline then
      last = math.max(last, deadline)
    elseif field ~= kept then
      gone[#gone + 1] = field
    end
  end
  if last == 0 and not kept then
    if #gone > 0 then
      redis.call('DEL', key)
    end
    return 0
  end
  for first = 1, #gone, 100 do
    redis.call('HDEL', key, unpack(gone, first, math.min(first + 99, #gone)))
  end
  if last > 0 then
    redis.call('PEXPIREAT', key, digits(last))
  end
  return last
end

