-- Return counts.
--
-- KEYS[1]  base (see state.lua)
--
-- Returns {users, connections, rooms, gateways}. Connections of a lost lease count until they are let go.

return {redis.call('ZCARD', K.index), read_counter('connections'), redis.call('ZCARD', K.rooms),
        redis.call('ZCARD', K.lease_due)}
