-- Add or replace a document.
--
-- KEYS[1]  documents: hash id -> JSON
-- ARGV[1]  id    ARGV[2]  JSON    ARGV[3]  most documents
-- ARGV[4]  ms: documents whose `endsAt` is not later are removed first; 0: none
--
-- Returns 1, or 0 if the limit is reached.

local now = tonumber(ARGV[4])
local kept = now > 0 and redis.call('HGETALL', KEYS[1]) or {}
for i = 1, #kept, 2 do
  if cjson.decode(kept[i + 1]).endsAt <= now then redis.call('HDEL', KEYS[1], kept[i]) end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
