-- Remove the published events up to a second from the outbox.
--
-- KEYS[1]  lease
-- KEYS[2]  outbox
-- ARGV[1]  `TERM|HOLDER`
-- ARGV[2]  the second

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])
