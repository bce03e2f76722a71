-- Apply one batch of a gateway, and renew its lease.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  policy, ARGV[2] new epoch, ARGV[3] fixed time, ARGV[4] to ARGV[7] the replica (see change_set.lua)
-- ARGV[8]  the batch: pack{gateway, boot, batch, fresh, ops, active}, with ops as
--          {'c', connection, user, name, idle ms}  {'d', connection, clean}  {'j', connection, room}
--          {'l', connection, room}  {'s', connection, rank}  {'u', connection, data, age ms}
--
-- Returns what settle() does (see commit.lua); outcomes are those of changes.py. On AGAIN a part has been done: the same
-- batch goes on from there. Repeating a batch that is done changes nothing.

local APPLIED, REPEATED, UNKNOWN, SUPERSEDED, AGAIN = 0, 1, 2, 3, 4
local REMEMBERED_BOOTS = 8
local ACTIVE_PIECE = 500  -- unpack() fits some 8,000 values; so many cost about as much as ten units of work

local gateway, boot, number, fresh, ops, active = unpack(cmsgpack.unpack(ARGV[8]))

-- A lease's fields.
local BOOT, BATCH, GENERATION, LEAVING, RETIRED, DONE = 1, 2, 3, 4, 5, 6

local function save(lease)
  redis.call('HSET', K.leases, gateway, cmsgpack.pack(lease))
  redis.call('ZADD', K.lease_due, now + P.lease_ms, gateway)
end

local packed = redis.call('HGET', K.leases, gateway)
local lease = packed and cmsgpack.unpack(packed)

if lease then
  for _, retired in ipairs(lease[RETIRED]) do
    if retired == boot then return settle(SUPERSEDED, false) end
  end
  if lease[BOOT] == boot and number <= lease[BATCH] then return settle(REPEATED, false) end
end
local going_on = lease and lease[BOOT] == boot and number == lease[BATCH] + 1 and lease[DONE] > 0

if fresh and not going_on then
  if not lease then lease = {boot, 0, 0, 0, {}, 0} end
  if lease[GENERATION] ~= 0 then
    -- A grace bridges the announcement. Where there is none, the old connections live on beside it for a lease.
    redis.call('ZADD', K.lost, P.grace_ms > 0 and now or now + P.lease_ms, lease[GENERATION])
    lease[LEAVING], lease[GENERATION] = lease[GENERATION], 0
  end
  if lease[BOOT] ~= boot then
    table.insert(lease[RETIRED], lease[BOOT])
    if #lease[RETIRED] > REMEMBERED_BOOTS then table.remove(lease[RETIRED], 1) end
    lease[BOOT] = boot
  end
  lease[BATCH], lease[DONE] = number - 1, 0
  if lease[LEAVING] ~= 0 then
    local lost_at = redis.call('ZSCORE', K.lost, lease[LEAVING])
    -- Without a score a sweep has let it go meanwhile.
    if lost_at and tonumber(lost_at) <= now and not let_go(lease[LEAVING], tonumber(lost_at)) then
      save(lease)
      return settle(AGAIN, true)
    end
    lease[LEAVING] = 0
  end
  lease[GENERATION] = redis.call('HINCRBY', K.meta, 'generation', 1)
elseif not lease or lease[BOOT] ~= boot or lease[GENERATION] == 0 then
  return settle(UNKNOWN, false)
elseif number > lease[BATCH] + 1 then
  -- A batch that was acknowledged is missing: this Redis lost its last writes, as a mark may show (see change_set.lua).
  begin_epoch()
  return settle(UNKNOWN, false)
end

local key = connections_key(lease[GENERATION])
local connections, order = {}, {}

local function position(list, item)
  for i, one in ipairs(list) do
    if one == item then return i end
  end
end

local on = {}

function on.c(id, connection, user_id, name, idle_ms)
  if connection then return end
  local user = touch(user_id)
  local record = user.record or {name, '', ONLINE, 0, 0, 0, 0, 0}
  user.record = record
  user.seen = math.max(user.seen or 0, now - idle_ms)
  local rank = ONLINE
  if record[GHOST] > 0 then
    rank = record[GHOST]
    record[GHOST] = 0
    redis.call('ZREM', K.user_graces, user_id)
  end
  if record[NAME] ~= name then
    record[NAME] = name
    will_be_told(user)
  end
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connections[id] = {user_id, rank, {}}
  connection_delta = connection_delta + 1
end

function on.d(id, connection, clean)
  if not connection then return end
  connections[id] = false
  local grace_due = nil
  if not clean and P.grace_ms > 0 then grace_due = now + P.grace_ms end
  disconnect(connection, grace_due, at_once)
end

function on.j(_, connection, room)
  if not connection or position(connection[ROOMS], room) then return end
  local user = touch(connection[OWNER])
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
  local record = user.record
  record[COUNTS + connection[CHOSEN]] = record[COUNTS + connection[CHOSEN]] - 1
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connection[CHOSEN] = rank
  will_be_told(user)
end

function on.u(_, connection, data, age_ms)
  if not connection then return end
  local user = touch(connection[OWNER])
  local record = user.record
  -- What a gateway announces again was set a while ago; what another connection set since then holds. What was set just
  -- now always holds: this clock may have stepped back.
  if age_ms > 0 and now - age_ms < record[DATA_AT] then return end
  record[DATA], record[DATA_AT] = data, now - age_ms
  will_be_told(user)
end

-- Operations first, then users who were active; `done` counts both.
local done, total = lease[DONE], #ops + #active

do  -- what this call will look at, in few calls
  local ids, users, seen = {}, {}, {}
  for i = done + 1, math.min(done + P.work, #ops) do
    local op = ops[i]
    if not seen[op[2]] then
      seen[op[2]] = true
      ids[#ids + 1] = op[2]
    end
    if op[1] == 'c' then users[#users + 1] = op[3] end
  end
  local found = {}
  fetch(key, ids, found)
  for _, id in ipairs(ids) do
    connections[id] = found[id] and cmsgpack.unpack(found[id]) or false
    order[#order + 1] = id
  end
  fetch(K.users, users, fetched_users)
end
while done < #ops and work < P.work do
  done = done + 1
  local op = ops[done]
  work = work + 1
  on[op[1]](op[2], connections[op[2]], op[3], op[4], op[5])
end
while done >= #ops and done < total and work < P.work do
  local arguments = {K.seen, 'XX', 'GT'}
  for i = done - #ops + 1, math.min(done - #ops + ACTIVE_PIECE, #active) do
    arguments[#arguments + 1] = now
    arguments[#arguments + 1] = active[i]
    done = done + 1
  end
  redis.call('ZADD', unpack(arguments))
  work = work + 10
end

for _, id in ipairs(order) do
  local connection = connections[id]
  if connection then
    gather('HSET', key, id, cmsgpack.pack(connection))
  else
    gather('HDEL', key, id)
  end
end

if done < total then
  lease[DONE] = done
  save(lease)
  return settle(AGAIN, true)
end
lease[BATCH], lease[DONE] = number, 0
save(lease)
return settle(APPLIED, false)
