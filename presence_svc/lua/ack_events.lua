-- Note that a webhook target has got events, or give up the turn; and forget events that all targets have.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the target
-- ARGV[2]  the process that gives up its turn
-- ARGV[3]  the last event delivered, packed (see state.lua); '' to give up the turn without
-- ARGV[4]  a fixed time in ms for tests, else 0
--
-- Safe to repeat, and safe when the turn has passed to another process: what was delivered stays delivered.
--
-- Targets are those that a process asked events for, not those that this one knows: while a change of the configuration
-- is rolled out, replicas know different ones. A target for which none asked for a day is forgotten.

local FORGOTTEN_AFTER_MS = 86400000

local now = read_clock(ARGV[4])
local packed = redis.call('HGET', K.hook_targets, ARGV[1])
local delivered, holder, held_until = 0, '', now
if packed then delivered, holder, held_until = unpack(cmsgpack.unpack(packed)) end

if ARGV[3] == '' then
  if holder ~= ARGV[2] then return 0 end
  held_until = now
else
  local event = cmsgpack.unpack(ARGV[3])
  -- A Redis that has lost its last writes gives numbers again: another event of this number was not delivered.
  if event[1] > read_counter('hook') then return 0 end
  local there = redis.call('ZRANGEBYSCORE', K.hooks, event[1], event[1])[1]
  for i, value in ipairs(there and cmsgpack.unpack(there) or {}) do
    if value ~= event[i] then return 0 end
  end
  delivered = math.max(delivered, event[1])
end
redis.call('HSET', K.hook_targets, ARGV[1], cmsgpack.pack({delivered, holder, held_until}))

local least = delivered
local targets = redis.call('HGETALL', K.hook_targets)
for i = 1, #targets, 2 do
  local number, by, until_ms = unpack(cmsgpack.unpack(targets[i + 1]))
  if until_ms == 0 then  -- given up by a version before this one, which did not say when
    redis.call('HSET', K.hook_targets, targets[i], cmsgpack.pack({number, by, now}))
  elseif until_ms < now - FORGOTTEN_AFTER_MS then
    redis.call('HDEL', K.hook_targets, targets[i])
    number = least
  end
  least = math.min(least, number)
end
return redis.call('ZREMRANGEBYSCORE', K.hooks, '-inf', least)
