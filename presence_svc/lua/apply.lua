-- Apply one batch of a gateway, and renew its lease.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  policy, ARGV[2] new epoch, ARGV[3] fixed time, ARGV[4] to ARGV[7] the replica (see change_set.lua)
-- ARGV[8]  the batch: pack{gateway, incarnation, batch, full, ops, active}, with ops as
--          {CONNECT, connection, user, name, idle ms}  {DISCONNECT, connection, clean}  {JOIN, connection, room,
--          data, age ms}
--          {LEAVE, connection, room}  {SET_STATUS, connection, rank}  {SET_DATA, connection, data, age ms}
--
-- Returns the answer of commit() (see commit.lua); results are those of changes.py. On PARTIAL a part has been done: the
-- same batch continues from there. Repeating a batch that is done changes nothing.

local CONNECT, DISCONNECT, JOIN, LEAVE, SET_STATUS, SET_DATA = 'c', 'd', 'j', 'l', 's', 'u'
local APPLIED, DUPLICATE, RESYNC, FENCED, PARTIAL = 0, 1, 2, 3, 4
local PAST_INCARNATIONS = 8
local ACTIVE_PIECE = 500  -- unpack() fits some 8,000 values; this piece costs about ten units of work

local gateway, incarnation, number, full, ops, active = unpack(cmsgpack.unpack(ARGV[8]))

-- A lease's fields.
local INCARNATION, BATCH, GENERATION, LEAVING, PAST, DONE = 1, 2, 3, 4, 5, 6

local function save(lease)
  redis.call('HSET', keys.leases, gateway, cmsgpack.pack(lease))
  redis.call('ZADD', keys.lease_due, now + policy.lease_ms, gateway)
end

local packed = redis.call('HGET', keys.leases, gateway)
local lease = packed and cmsgpack.unpack(packed)

if lease then
  for _, past in ipairs(lease[PAST]) do
    if past == incarnation then return commit(FENCED, false) end
  end
  if lease[INCARNATION] == incarnation and number <= lease[BATCH] then return commit(DUPLICATE, false) end
end
local continued = lease and lease[INCARNATION] == incarnation and number == lease[BATCH] + 1 and lease[DONE] > 0

if full and not continued then
  if not lease then lease = {incarnation, 0, 0, 0, {}, 0} end
  if lease[GENERATION] ~= 0 then
    -- A grace covers the announcement. Without one, the old connections stay valid beside it for a lease.
    redis.call('ZADD', keys.lost, policy.grace_ms > 0 and now or now + policy.lease_ms, lease[GENERATION])
    lease[LEAVING], lease[GENERATION] = lease[GENERATION], 0
  end
  if lease[INCARNATION] ~= incarnation then
    table.insert(lease[PAST], lease[INCARNATION])
    if #lease[PAST] > PAST_INCARNATIONS then table.remove(lease[PAST], 1) end
    lease[INCARNATION] = incarnation
  end
  lease[BATCH], lease[DONE] = number - 1, 0
  if lease[LEAVING] ~= 0 then
    local lost_at = redis.call('ZSCORE', keys.lost, lease[LEAVING])
    -- Without a score a sweep has expired it meanwhile.
    if lost_at and tonumber(lost_at) <= now and not expire_generation(lease[LEAVING], tonumber(lost_at)) then
      save(lease)
      return commit(PARTIAL, true)
    end
    lease[LEAVING] = 0
  end
  lease[GENERATION] = redis.call('HINCRBY', keys.meta, 'generation', 1)
elseif not lease or lease[INCARNATION] ~= incarnation or lease[GENERATION] == 0 then
  return commit(RESYNC, false)
elseif number > lease[BATCH] + 1 then
  -- A batch that was acknowledged is missing: this Redis lost its last writes, as a mark may show (see change_set.lua).
  begin_epoch()
  return commit(RESYNC, false)
end

local key = connections_key(lease[GENERATION])
local connections, order = {}, {}

local function position(list, item)
  for i, one in ipairs(list) do
    if one == item then return i end
  end
end

local operations = {}

operations[CONNECT] = function(id, connection, user_id, name, idle_ms)
  if connection then return end
  local user = track(user_id)
  local record = user.record or {name, '', ONLINE, 0, 0, 0, 0, 0}
  user.record = record
  user.seen = math.max(user.seen or 0, now - idle_ms)
  local rank = ONLINE
  if record[LINGERING] > 0 then
    rank = record[LINGERING]
    record[LINGERING] = 0
    redis.call('ZREM', keys.user_graces, user_id)
  end
  if record[NAME] ~= name then
    record[NAME] = name
    count_announcement(user)
  end
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connections[id] = {user_id, rank, {}}
  connection_delta = connection_delta + 1
end

operations[DISCONNECT] = function(id, connection, clean)
  if not connection then return end
  connections[id] = false
  local grace_due = nil
  if not clean and policy.grace_ms > 0 then grace_due = now + policy.grace_ms end
  disconnect(connection, grace_due, write_now)
end

operations[JOIN] = function(_, connection, room, data, age_ms)
  if not connection then return end
  local user = track(connection[USER_ID])
  if not position(connection[ROOMS], room) then
    table.insert(connection[ROOMS], room)
    local rooms = rooms_to_change(user, room)
    rooms[room] = (rooms[room] or 0) + 1
    count_connections(room, 1)
    redis.call('ZREM', keys.room_graces, room_grace(user.id, room))
  end
  if data and data ~= '' then
    rooms_to_change(user, room)
    -- As for SET_DATA.
    if age_ms > 0 and now - age_ms < member_data(user, room)[2] then return end
    show_member_data(user, room, data, now - age_ms)
    rooms_with_data[room] = true
  end
end

operations[LEAVE] = function(_, connection, room)
  local index = connection and position(connection[ROOMS], room)
  if not index then return end
  local user = track(connection[USER_ID])
  table.remove(connection[ROOMS], index)
  local rooms = rooms_to_change(user, room)
  rooms[room] = rooms[room] - 1
  count_connections(room, -1)
  if rooms[room] == 0 then  -- the user left on purpose: the grace of a lost connection ends
    end_membership(user, room)
    redis.call('ZREM', keys.room_graces, room_grace(user.id, room))
  end
end

operations[SET_STATUS] = function(_, connection, rank)
  if not connection then return end
  local user = track(connection[USER_ID])
  local record = user.record
  record[COUNTS + connection[OWN_RANK]] = record[COUNTS + connection[OWN_RANK]] - 1
  record[COUNTS + rank] = record[COUNTS + rank] + 1
  connection[OWN_RANK] = rank
  count_announcement(user)
end

operations[SET_DATA] = function(_, connection, data, age_ms)
  if not connection then return end
  local user = track(connection[USER_ID])
  local record = user.record
  -- A repeated announcement has data set a while ago; data that another connection set since then wins. Data set just
  -- now always wins: this clock may have stepped back.
  if age_ms > 0 and now - age_ms < record[DATA_AT] then return end
  record[DATA], record[DATA_AT] = data, now - age_ms
  count_announcement(user)
end

-- Operations first, then users who were active; `done` counts both.
local done, total = lease[DONE], #ops + #active

do  -- fetch all that this call reads, with few calls
  local ids, users, seen = {}, {}, {}
  for i = done + 1, math.min(done + policy.work, #ops) do
    local op = ops[i]
    if not seen[op[2]] then
      seen[op[2]] = true
      ids[#ids + 1] = op[2]
    end
    if op[1] == CONNECT then users[#users + 1] = op[3] end
  end
  local found = {}
  fetch(key, ids, found)
  for _, id in ipairs(ids) do
    connections[id] = found[id] and cmsgpack.unpack(found[id]) or false
    order[#order + 1] = id
  end
  fetch(keys.users, users, fetched_users)
end
while done < #ops and work < policy.work do
  done = done + 1
  local op = ops[done]
  work = work + 1
  operations[op[1]](op[2], connections[op[2]], op[3], op[4], op[5])
end
while done >= #ops and done < total and work < policy.work do
  local arguments = {keys.seen, 'XX', 'GT'}
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
  return commit(PARTIAL, true)
end
lease[BATCH], lease[DONE] = number, 0
save(lease)
return commit(APPLIED, false)
