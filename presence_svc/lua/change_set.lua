-- The change set of a script: users loaded once, changed in Lua, written once by commit(). Follows state.lua in scripts
-- that write.
--
-- ARGV[1]  the policy: pack of a map (see store.py)
-- ARGV[2]  a new epoch, taken when the keyspace is empty or has lost data
-- ARGV[3]  a fixed time in ms for tests, else 0
-- ARGV[4]  the calling replica, and the last answer to it: ARGV[5] the epoch, ARGV[6] its highest mark in it,
--          ARGV[7] the highest version in it

local policy = cmsgpack.unpack(ARGV[1])
local epoch, now = read_epoch(ARGV[2]), read_clock(ARGV[3])

local function begin_epoch()
  epoch = ARGV[2]
  redis.call('HSET', keys.meta, 'epoch', epoch)
end

-- A mark counts a replica's steps that changed something. A store that has a lower mark than it answered to the replica
-- has lost its last writes (a failover, a restore) and will give their versions a second time, to other changes. A new
-- epoch makes every follower fetch a snapshot. The version covers steps of replicas that have ended since.
local MARK_KEPT_MS = 86400000
local mark_key = KEYS[1] .. ':mark:' .. ARGV[4]
local mark = tonumber(redis.call('GET', mark_key) or 0)
if epoch == ARGV[5] and (mark < tonumber(ARGV[6]) or read_counter('version') < tonumber(ARGV[7])) then begin_epoch() end

-- Work of this call, in connections, memberships and changes: some 30 us of Redis' time each. At policy.work the call
-- stops, and is repeated, so that other clients of Redis are served in between.
local work = 0

-- Calls are gathered where their order among others does not matter: one call for 500 values takes Redis far less
-- time than 500 calls.
local PIECE = 500  -- unpack() fits some 8,000 values
local gathered, gathered_order = {}, {}

local function gather(command, key, ...)
  local name = command .. key
  local into = gathered[name]
  if not into then
    into = {command = command, key = key}
    gathered[name] = into
    gathered_order[#gathered_order + 1] = into
  end
  for _, value in ipairs({...}) do into[#into + 1] = value end
end

local function write_gathered()
  for _, one in ipairs(gathered_order) do
    local command, condition = string.match(one.command, '^(%u+) ?(%u*)$')
    for first = 1, #one, PIECE do
      local values = {unpack(one, first, math.min(first + PIECE - 1, #one))}
      if condition == '' then
        redis.call(command, one.key, unpack(values))
      else
        redis.call(command, one.key, condition, unpack(values))
      end
    end
  end
  gathered, gathered_order = {}, {}
end

-- Fetch fields of a hash with few calls, into a table: false where there is none.
local function fetch(key, fields, into)
  for first = 1, #fields, PIECE do
    local last = math.min(first + PIECE - 1, #fields)
    local found = redis.call('HMGET', key, unpack(fields, first, last))
    for i = first, last do into[fields[i]] = found[i - first + 1] end
  end
end

local dirty, by_id = {}, {}
local fetched_users = {}
local connection_delta, room_connection_delta = 0, {}

local function track(id)
  local user = by_id[id]
  if user then return user end
  user = {id = id, room_before = {}}
  local packed = fetched_users[id]
  if packed == nil then packed = redis.call('HGET', keys.users, id) end
  if packed then
    user.record = cmsgpack.unpack(packed)
    user.before = {user.record[NAME], user.record[DATA], user.record[RANK]}
  end
  by_id[id] = user
  dirty[#dirty + 1] = user
  return user
end

local function rooms_of(user)
  if not user.rooms then
    local packed = redis.call('HGET', keys.memberships, user.id)
    user.rooms = packed and cmsgpack.unpack(packed) or {}
  end
  return user.rooms
end

-- The user's rooms, before a change of one of them.
local function rooms_to_change(user, room)
  local rooms = rooms_of(user)
  if user.room_before[room] == nil then user.room_before[room] = rooms[room] ~= nil end
  return rooms
end

-- Member data is read once, and only where its room has any.
local rooms_with_data = {}
local function has_member_data(room)
  if rooms_with_data[room] == nil then
    rooms_with_data[room] = redis.call('EXISTS', member_data_key(room)) == 1
  end
  return rooms_with_data[room]
end

-- What a user shows in a room: {data, when it was set, data before this call, whether to write it}.
local function member_data(user, room)
  user.member_data = user.member_data or {}
  local shown = user.member_data[room]
  if not shown then
    local value = has_member_data(room) and redis.call('HGET', member_data_key(room), user.id)
    local data, at = parse_member_data(value)
    -- An earlier version leaves data behind where a membership ends: it is not that of the next one.
    local left_behind = data ~= '' and user.room_before[room] == false
    if left_behind then data, at = '', 0 end
    shown = {data, at, data, left_behind}
    user.member_data[room] = shown
  end
  return shown
end

local function show_member_data(user, room, data, at)
  local shown = member_data(user, room)
  shown[1], shown[2], shown[4] = data, at, true
end

-- End a membership, and what was shown with it.
local function end_membership(user, room)
  rooms_to_change(user, room)[room] = nil
  if has_member_data(room) then show_member_data(user, room, '', 0) end
end

-- A change of this user is announced in all their rooms: that is work, counted once.
local function count_announcement(user)
  if user.counted or not user.before then return end
  user.counted = true
  for _ in pairs(rooms_of(user)) do work = work + 1 end
end

local function count_connections(room, delta)
  room_connection_delta[room] = (room_connection_delta[room] or 0) + delta
end

local function live_connections(record) return record[COUNTS + 1] + record[COUNTS + 2] + record[COUNTS + 3] end

local function strongest_rank(record)
  for rank = 3, 1, -1 do
    if record[COUNTS + rank] > 0 or record[LINGERING] == rank then return rank end
  end
end

local function sorted_names(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function write_now(command, key, score, member) redis.call('ZADD', key, 'GT', score, member) end

-- Remove a connection: lost, with a grace until grace_due, or without (nil) where it closed cleanly. `writer` writes
-- graces: write_now, where later operations may read or end them, or gather.
local function disconnect(connection, grace_due, writer)
  local user = track(connection[USER_ID])
  work = work + 1 + #connection[ROOMS]
  connection_delta = connection_delta - 1
  for _, room in ipairs(connection[ROOMS]) do
    local rooms = rooms_to_change(user, room)
    rooms[room] = rooms[room] - 1
    count_connections(room, -1)
    if grace_due then
      writer('ZADD GT', keys.room_graces, grace_due, room_grace(user.id, room))
    elseif rooms[room] == 0 and not redis.call('ZSCORE', keys.room_graces, room_grace(user.id, room)) then
      end_membership(user, room)
    end
  end
  local record = user.record
  record[COUNTS + connection[OWN_RANK]] = record[COUNTS + connection[OWN_RANK]] - 1
  if grace_due then
    record[LINGERING] = math.max(record[LINGERING], connection[OWN_RANK])
    writer('ZADD GT', keys.user_graces, grace_due, user.id)
  end
end

-- Expire connections of a lost generation, up to the limit of work. Returns whether none are left.
local function expire_generation(generation, lost_at)
  local key = connections_key(generation)
  local grace_due = nil
  if policy.grace_ms > 0 then grace_due = lost_at + policy.grace_ms end
  while work < policy.work do
    local found = redis.call('HRANDFIELD', key, math.min(policy.work - work, 50), 'WITHVALUES')
    if #found == 0 then break end
    local gone = {}
    for i = 1, #found, 2 do
      disconnect(cmsgpack.unpack(found[i + 1]), grace_due, gather)
      gone[#gone + 1] = found[i]
    end
    redis.call('HDEL', key, unpack(gone))
  end
  write_gathered()
  if redis.call('EXISTS', key) == 1 then return false end
  redis.call('ZREM', keys.lost, generation)
  return true
end

-- Remove a user without connections and without a grace, out of all rooms too.
local function drop_if_gone(user)
  local record = user.record
  if not record or record[LINGERING] > 0 or live_connections(record) > 0 then return end
  for _, room in ipairs(sorted_names(rooms_of(user))) do
    end_membership(user, room)
    work = work + 1
    gather('ZREM', keys.room_graces, room_grace(user.id, room))
  end
  user.record = nil
  gather('HDEL', keys.users, user.id)
  gather('ZREM', keys.index, user.id)
  gather('ZREM', keys.seen, user.id)
  gather('ZREM', keys.user_graces, user.id)
end

local function write_member_data(user)
  for room, shown in pairs(user.member_data or {}) do
    if shown[4] and shown[1] ~= '' then
      gather('HSET', member_data_key(room), user.id, string.format('%.0f %s', shown[2], shown[1]))
    elseif shown[4] then
      gather('HDEL', member_data_key(room), user.id)
    end
  end
end

local function write(user)
  local record = user.record
  if record then
    record[RANK] = strongest_rank(record)
    gather('HSET', keys.users, user.id, cmsgpack.pack(record))
    if not user.before then gather('ZADD', keys.index, 0, user.id) end
    if user.seen then gather('ZADD GT', keys.seen, user.seen, user.id) end
  end
  if next(user.room_before) == nil then return end
  if next(user.rooms) == nil then
    gather('HDEL', keys.memberships, user.id)
  else
    gather('HSET', keys.memberships, user.id, cmsgpack.pack(user.rooms))
  end
end
