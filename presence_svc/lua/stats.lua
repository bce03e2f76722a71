-- Return counts.
--
-- KEYS[1]  base (see state.lua)
--
-- Returns {users, connections, rooms, gateways}. Connections of a lost lease count until they expire.

return {redis.call('ZCARD', keys.index), read_counter('connections'), redis.call('ZCARD', keys.rooms),
        redis.call('ZCARD', keys.lease_due)}
