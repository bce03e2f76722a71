-- Return events not delivered to a webhook target yet, to the one owner that may deliver them now.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the target
-- ARGV[2]  the owner of the lease, if it is free
-- ARGV[3]  ms of the lease
-- ARGV[4]  limit of events; 0 to extend the lease alone
-- ARGV[5]  a fixed time in ms for tests, else 0
--
-- Returns {epoch, dropped, event, ...}: `dropped` events were deleted undelivered, because too many waited; an event is
-- packed (see state.lua). Only {'', 0} while another owner has the lease.

local now = read_clock(ARGV[5])
local packed = redis.call('HGET', keys.hook_targets, ARGV[1])
local delivered, owner, leased_until = 0, '', 0
if packed then delivered, owner, leased_until = unpack(cmsgpack.unpack(packed)) end
if owner ~= ARGV[2] and leased_until > now then return {'', 0} end
redis.call('HSET', keys.hook_targets, ARGV[1], cmsgpack.pack({delivered, ARGV[2], now + tonumber(ARGV[3])}))

local found = redis.call('ZRANGEBYSCORE', keys.hooks, '(' .. delivered, '+inf', 'LIMIT', 0, ARGV[4])
local dropped = 0
-- A new target starts with the oldest event kept.
if #found > 0 and delivered > 0 then dropped = cmsgpack.unpack(found[1])[1] - delivered - 1 end
return {redis.call('HGET', keys.meta, 'epoch') or '', dropped, unpack(found)}
