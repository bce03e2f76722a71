-- Add or replace a silence, and remove those that have ended.
--
-- KEYS[1]  silences: hash id -> JSON
-- ARGV[1]  id    ARGV[2]  JSON    ARGV[3]  now in ms    ARGV[4]  most silences
--
-- Returns 1, or 0 if the limit is reached.

local now = tonumber(ARGV[3])
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  if cjson.decode(kept[i + 1]).endsAt <= now then redis.call('HDEL', KEYS[1], kept[i]) end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
