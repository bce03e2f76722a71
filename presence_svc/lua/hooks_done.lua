-- Note that a webhook target has got events, and forget those that all targets have.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the target
-- ARGV[2]  the process that delivered
-- ARGV[3]  the number of the last event delivered; 0 to give up the turn without
-- ARGV[4]  all targets there are, packed
--
-- Safe to repeat, and safe when the turn has passed to another process: what was delivered stays delivered.

local packed = redis.call('HGET', K.hook_targets, ARGV[1])
local delivered, holder, held_until = 0, '', 0
if packed then delivered, holder, held_until = unpack(cmsgpack.unpack(packed)) end
delivered = math.max(delivered, tonumber(ARGV[3]))
if holder == ARGV[2] and ARGV[3] == '0' then held_until = 0 end
redis.call('HSET', K.hook_targets, ARGV[1], cmsgpack.pack({delivered, holder, held_until}))

local targets, least = {}, delivered
for _, target in ipairs(cmsgpack.unpack(ARGV[4])) do
  targets[target] = true
  local one = redis.call('HGET', K.hook_targets, target)
  least = math.min(least, one and cmsgpack.unpack(one)[1] or 0)
end
for _, target in ipairs(redis.call('HKEYS', K.hook_targets)) do
  if not targets[target] then redis.call('HDEL', K.hook_targets, target) end
end
return redis.call('ZREMRANGEBYSCORE', K.hooks, '-inf', least)
