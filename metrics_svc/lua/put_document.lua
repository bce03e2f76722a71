-- Add or replace a document.
--
-- KEYS[1]  documents: hash id -> JSON
-- ARGV[1]  id    ARGV[2]  JSON    ARGV[3]  most documents
--
-- Returns 1, or 0 if the limit is reached.

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
