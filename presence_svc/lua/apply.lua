-- Apply one batch of a gateway, and renew its lease.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the batch: pack{gateway, boot, batch, fresh, ops, active}, with ops as
--          {'c', connection, user, name}  {'d', connection, clean}  {'j', connection, room}
--          {'l', connection, room}  {'s', connection, rank}  {'u', connection, data}
-- ARGV[2]  lease in ms
-- ARGV[3]  grace in ms
-- ARGV[4]  ms for which the version of an empty room is kept
-- ARGV[5]  a new epoch, taken when the keyspace is empty or has lost data
-- ARGV[6]  a fixed time in ms for tests, else 0
-- ARGV[7]  connections of an earlier lease that one call may let go
--
-- Returns pack{outcome, epoch, version, changes, rooms, notices, again} (see ledger.lua); outcomes are those of
-- changes.py. Repeating a batch changes nothing.

local APPLIED, REPEATED, UNKNOWN, SUPERSEDED, AGAIN = 0, 1, 2, 3, 4
local REMEMBERED_BOOTS = 8

local gateway, boot, number, fresh, ops, active = unpack(cmsgpack.unpack(ARGV[1]))
local lease_ms, grace_ms, idle_room_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch = read_epoch(ARGV[5])
local now = read_clock(ARGV[6])

-- A lease's fields.
local BOOT, BATCH, GENERATION, LEAVING, RETIRED = 1, 2, 3, 4, 5

local function save(lease)
  redis.call('HSET', K.leases, gateway, cmsgpack.pack(lease))
  redis.call('ZADD', K.lease_due, now + lease_ms, gateway)
end

local packed = redis.call('HGET', K.leases, gateway)
local lease = packed and cmsgpack.unpack(packed)

if lease then
  for _, retired in ipairs(lease[RETIRED]) do
    if retired == boot then return settle(now, epoch, idle_room_ms, SUPERSEDED, false) end
  end
  if lease[BOOT] == boot and number <= lease[BATCH] then
    return settle(now, epoch, idle_room_ms, REPEATED, false)
  end
end

if fresh then
  if not lease then lease = {boot, 0, 0, 0, {}} end
  if lease[GENERATION] ~= 0 then
    redis.call('ZADD', K.lost, now, lease[GENERATION])
    lease[LEAVING], lease[GENERATION] = lease[GENERATION], 0
  end
  if lease[BOOT] ~= boot then
    table.insert(lease[RETIRED], lease[BOOT])
    if #lease[RETIRED] > REMEMBERED_BOOTS then table.remove(lease[RETIRED], 1) end
    lease[BOOT] = boot
  end
  lease[BATCH] = number - 1
  if lease[LEAVING] ~= 0 then
    local lost_at = redis.call('ZSCORE', K.lost, lease[LEAVING])
    local gone = true
    if lost_at then  -- else a sweep has let it go meanwhile
      local _
      _, gone = let_go(lease[LEAVING], tonumber(lost_at), grace_ms, tonumber(ARGV[7]))
    end
    if not gone then
      save(lease)
      return settle(now, epoch, idle_room_ms, AGAIN, true)
    end
    lease[LEAVING] = 0
  end
  lease[GENERATION] = redis.call('HINCRBY', K.meta, 'generation', 1)
elseif not lease or lease[BOOT] ~= boot or lease[GENERATION] == 0 then
  return settle(now, epoch, idle_room_ms, UNKNOWN, false)
elseif number > lease[BATCH] + 1 then
  -- A batch that was acknowledged is missing: this Redis lost its last writes (a failover, a restore), and may give
  -- versions a second time. A new epoch makes every follower ask again.
  redis.call('HSET', K.meta, 'epoch', ARGV[5])
  return settle(now, ARGV[5], idle_room_ms, UNKNOWN, false)
end

lease[BATCH] = number
save(lease)

local key = connections_key(lease[GENERATION])
local connections, order = {}, {}

local function find(id)
  local connection = connections[id]
  if connection == nil then
    local stored = redis.call('HGET', key, id)
    connection = stored and cmsgpack.unpack(stored) or false
    connections[id] = connection
    order[#order + 1] = id
  end
  return connection
end

local function position(list, item)
  for i, one in ipairs(list) do
    if one == item then return i end
  end
end

local on = {}

function on.c(id, connection, user_id, name)
  if connection then return end
  local user = touch(user_id)
  local record = user.record or {name, '', ONLINE, 0, 0, 0, 0}
  user.record, user.active = record, true
  local rank = ONLINE
  if record[GHOST] > 0 then
    rank = record[GHOST]
    record[GHOST] = 0
    redis.call('ZREM', K.user_graces, user_id)
  end
  record[NAME] = name
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connections[id] = {user_id, rank, {}}
  connection_delta = connection_delta + 1
end

function on.d(id, connection, clean)
  if not connection then return end
  connections[id] = false
  local grace_due = nil
  if not clean and grace_ms > 0 then grace_due = now + grace_ms end
  disconnect(connection, grace_due)
end

function on.j(_, connection, room)
  if not connection or position(connection[ROOMS], room) then return end
  local user = touch(connection[OWNER])
  user.active = true
  table.insert(connection[ROOMS], room)
  local rooms = rooms_to_change(user, room)
  rooms[room] = (rooms[room] or 0) + 1
  count_connections(room, 1)
  redis.call('ZREM', K.room_graces, room_grace(user.id, room))
end

function on.l(_, connection, room)
  local place = connection and position(connection[ROOMS], room)
  if not place then return end
  local user = touch(connection[OWNER])
  user.active = true
  table.remove(connection[ROOMS], place)
  local rooms = rooms_to_change(user, room)
  rooms[room] = rooms[room] - 1
  count_connections(room, -1)
  if rooms[room] == 0 then  -- they said that they leave: a lost connection is not waited for
    rooms[room] = nil
    redis.call('ZREM', K.room_graces, room_grace(user.id, room))
  end
end

function on.s(_, connection, rank)
  if not connection then return end
  local user = touch(connection[OWNER])
  user.active = true
  local record = user.record
  record[COUNTS + connection[CHOSEN]] = record[COUNTS + connection[CHOSEN]] - 1
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connection[CHOSEN] = rank
end

function on.u(_, connection, data)
  if not connection then return end
  local user = touch(connection[OWNER])
  user.active = true
  user.record[DATA] = data
end

for _, op in ipairs(ops) do
  on[op[1]](op[2], find(op[2]), op[3], op[4])
end

for _, id in ipairs(order) do
  local connection = connections[id]
  if connection then
    redis.call('HSET', key, id, cmsgpack.pack(connection))
  else
    redis.call('HDEL', key, id)
  end
end

-- In pieces, because unpack() fits some 8,000 values.
for first = 1, #active, 1000 do
  local arguments = {K.seen, 'XX'}
  for i = first, math.min(first + 999, #active) do
    arguments[#arguments + 1] = now
    arguments[#arguments + 1] = active[i]
  end
  redis.call('ZADD', unpack(arguments))
end

return settle(now, epoch, idle_room_ms, APPLIED, false)
