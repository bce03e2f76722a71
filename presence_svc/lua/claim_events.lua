-- Return events that a webhook target has not got yet, to the one process that may deliver them now.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the target
-- ARGV[2]  the process that asks
-- ARGV[3]  ms for which it alone may deliver
-- ARGV[4]  the most events to return; 0 to hold the turn alone
-- ARGV[5]  a fixed time in ms for tests, else 0
--
-- Returns {epoch, lost, event, ...}: `lost` events went before they were delivered, because too many waited; an event is
-- packed (see state.lua). Nothing but {'', 0} while another process delivers.

local now = read_clock(ARGV[5])
local packed = redis.call('HGET', K.hook_targets, ARGV[1])
local delivered, holder, held_until = 0, '', 0
if packed then delivered, holder, held_until = unpack(cmsgpack.unpack(packed)) end
if holder ~= ARGV[2] and held_until > now then return {'', 0} end
redis.call('HSET', K.hook_targets, ARGV[1], cmsgpack.pack({delivered, ARGV[2], now + tonumber(ARGV[3])}))

local found = redis.call('ZRANGEBYSCORE', K.hooks, '(' .. delivered, '+inf', 'LIMIT', 0, ARGV[4])
local lost = 0
-- A target seen for the first time starts with what is there.
if #found > 0 and delivered > 0 then lost = cmsgpack.unpack(found[1])[1] - delivered - 1 end
return {redis.call('HGET', K.meta, 'epoch') or '', lost, unpack(found)}
