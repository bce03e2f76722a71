-- Acknowledge the current episode of a firing alert.
--
-- KEYS[1]  watches: hash id -> JSON
-- KEYS[2]  acks: hash id -> JSON of {startedAt, by, comment, at}, all text
-- ARGV[1]  alert id
-- ARGV[2]  by    ARGV[3]  comment    ARGV[4]  at, in ms
--
-- Returns 1, or 0 if the alert does not fire.

local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
local instance = cjson.decode(stored)
if instance.state ~= 'firing' then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({
  startedAt = string.format('%.0f', instance.started_at), by = ARGV[2], comment = ARGV[3], at = ARGV[4],
}))
return 1
