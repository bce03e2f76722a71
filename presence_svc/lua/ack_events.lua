-- Acknowledge events that a webhook target has, or release its lease; and forget events that all targets have.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the target
-- ARGV[2]  the owner that releases the lease
-- ARGV[3]  the last event delivered, packed (see state.lua); '' to release the lease
-- ARGV[4]  a fixed time in ms for tests, else 0
--
-- Safe to repeat, and safe when another owner has the lease: events that were delivered remain so.
--
-- All targets count for which any process claimed events, not only those of the caller: while a change of the
-- configuration is rolled out, replicas know different ones. A target is forgotten after a day without a claim.

local FORGOTTEN_AFTER_MS = 86400000

local now = read_clock(ARGV[4])
local packed = redis.call('HGET', keys.hook_targets, ARGV[1])
local delivered, owner, leased_until = 0, '', now
if packed then delivered, owner, leased_until = unpack(cmsgpack.unpack(packed)) end

if ARGV[3] == '' then
  if owner ~= ARGV[2] then return 0 end
  leased_until = now
else
  local event = cmsgpack.unpack(ARGV[3])
  -- A Redis that has lost its last writes gives numbers again: another event of this number was not delivered.
  if event[1] > read_counter('hook') then return 0 end
  local stored = redis.call('ZRANGEBYSCORE', keys.hooks, event[1], event[1])[1]
  for i, value in ipairs(stored and cmsgpack.unpack(stored) or {}) do
    if value ~= event[i] then return 0 end
  end
  delivered = math.max(delivered, event[1])
end
redis.call('HSET', keys.hook_targets, ARGV[1], cmsgpack.pack({delivered, owner, leased_until}))

local least = delivered
local targets = redis.call('HGETALL', keys.hook_targets)
for i = 1, #targets, 2 do
  local number, target_owner, until_ms = unpack(cmsgpack.unpack(targets[i + 1]))
  if until_ms == 0 then  -- released by an earlier version, which did not store when
    redis.call('HSET', keys.hook_targets, targets[i], cmsgpack.pack({number, target_owner, now}))
  elseif until_ms < now - FORGOTTEN_AFTER_MS then
    redis.call('HDEL', keys.hook_targets, targets[i])
    number = least
  end
  least = math.min(least, number)
end
return redis.call('ZREMRANGEBYSCORE', keys.hooks, '-inf', least)
