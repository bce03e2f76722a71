-- Let go what is due: leases that were not renewed, connections that are lost, graces that have run out.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  grace in ms
-- ARGV[2]  ms for which the version of an empty room is kept
-- ARGV[3]  a new epoch, taken when the keyspace is empty
-- ARGV[4]  a fixed time in ms for tests, else 0
-- ARGV[5]  how much one call may do, in connections and memberships
--
-- Returns pack{0, epoch, version, changes, rooms, notices, again} (see ledger.lua). Any number of processes may
-- sweep: what one has taken, another does not find.

local grace_ms, idle_room_ms, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local epoch = read_epoch(ARGV[3])
local now = read_clock(ARGV[4])
local budget = limit

for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', K.lease_due, '-inf', now)) do
  local lease = redis.call('HGET', K.leases, gateway)
  local generation = lease and cmsgpack.unpack(lease)[3] or 0
  if generation ~= 0 then redis.call('ZADD', K.lost, now, generation) end
  redis.call('HDEL', K.leases, gateway)
  redis.call('ZREM', K.lease_due, gateway)
end

while budget > 0 do
  local lost = redis.call('ZRANGE', K.lost, 0, 0, 'WITHSCORES')
  if #lost == 0 then break end
  budget = let_go(lost[1], tonumber(lost[2]), grace_ms, budget)
end

local function due(key)
  if budget <= 0 then return {} end
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, budget)
end

-- Users first: who goes leaves all rooms in the same step, and their room graces with them.
for _, user_id in ipairs(due(K.user_graces)) do
  redis.call('ZREM', K.user_graces, user_id)
  local user = touch(user_id)
  if user.record then
    user.record[GHOST] = 0
    drop_if_gone(user)
  end
  budget = budget - 1
end

for _, member in ipairs(due(K.room_graces)) do
  local user_id, room = parse_room_grace(member)
  redis.call('ZREM', K.room_graces, member)
  local user = touch(user_id)
  if rooms_of(user)[room] == 0 then rooms_to_change(user, room)[room] = nil end
  budget = budget - 1
end

for _, room in ipairs(due(K.idle_rooms)) do
  redis.call('ZREM', K.idle_rooms, room)
  redis.call('HDEL', K.room_versions, room)
  budget = budget - 1
end

return settle(now, epoch, idle_room_ms, 0, budget <= 0)
