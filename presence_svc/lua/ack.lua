-- Forget steps whose changes have reached the bus.
--
-- KEYS[1]  base (see state.lua)
-- ARGV     the steps

for _, step in ipairs(ARGV) do
  local bytes = redis.call('HSTRLEN', K.outbox, step)
  if bytes > 0 then
    redis.call('HDEL', K.outbox, step)
    redis.call('HINCRBY', K.meta, 'outbox_bytes', -bytes)
  end
  redis.call('ZREM', K.outbox_due, step)
end
return #ARGV
