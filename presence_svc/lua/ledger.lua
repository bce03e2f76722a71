-- Net changes: users touched by a script, as they were and as they are. Follows state.lua in scripts that write.
--
-- A user is loaded once, changed in Lua, and written once by settle(), which compares and numbers the changes.

local touched, by_id = {}, {}
local connection_delta, room_connection_delta = 0, {}

local function touch(id)
  local user = by_id[id]
  if user then return user end
  user = {id = id, room_was = {}}
  local packed = redis.call('HGET', K.users, id)
  if packed then
    user.record = cmsgpack.unpack(packed)
    user.was = {user.record[NAME], user.record[DATA], user.record[RANK]}
  end
  by_id[id] = user
  touched[#touched + 1] = user
  return user
end

local function rooms_of(user)
  if not user.rooms then
    local packed = redis.call('HGET', K.memberships, user.id)
    user.rooms = packed and cmsgpack.unpack(packed) or {}
  end
  return user.rooms
end

-- The user's rooms, about to be changed for one of them.
local function rooms_to_change(user, room)
  local rooms = rooms_of(user)
  if user.room_was[room] == nil then user.room_was[room] = rooms[room] ~= nil end
  return rooms
end

local function count_connections(room, delta)
  room_connection_delta[room] = (room_connection_delta[room] or 0) + delta
end

local function live_connections(record) return record[COUNTS + 1] + record[COUNTS + 2] + record[COUNTS + 3] end

local function strongest_rank(record)
  for rank = 3, 1, -1 do
    if record[COUNTS + rank] > 0 or record[GHOST] == rank then return rank end
  end
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- Take a connection away: lost, with a grace until grace_due, or without (nil) where it closed cleanly.
local function disconnect(connection, grace_due)
  local user = touch(connection[OWNER])
  connection_delta = connection_delta - 1
  for _, room in ipairs(connection[ROOMS]) do
    local rooms = rooms_to_change(user, room)
    rooms[room] = rooms[room] - 1
    count_connections(room, -1)
    if grace_due then
      redis.call('ZADD', K.room_graces, 'GT', grace_due, room_grace(user.id, room))
    elseif rooms[room] == 0 and not redis.call('ZSCORE', K.room_graces, room_grace(user.id, room)) then
      rooms[room] = nil
    end
  end
  local record = user.record
  record[COUNTS + connection[CHOSEN]] = record[COUNTS + connection[CHOSEN]] - 1
  if grace_due then
    record[GHOST] = math.max(record[GHOST], connection[CHOSEN])
    redis.call('ZADD', K.user_graces, 'GT', grace_due, user.id)
  end
end

-- Let go at most `budget` connections of a lost generation. Returns what is left of the budget, and whether the
-- generation is gone.
local function let_go(generation, lost_at, grace_ms, budget)
  local key = connections_key(generation)
  local grace_due = nil
  if grace_ms > 0 then grace_due = lost_at + grace_ms end
  while budget > 0 do
    local found = redis.call('HRANDFIELD', key, math.min(budget, 100), 'WITHVALUES')
    if #found == 0 then break end
    for i = 1, #found, 2 do
      local connection = cmsgpack.unpack(found[i + 1])
      disconnect(connection, grace_due)
      redis.call('HDEL', key, found[i])
      budget = budget - 1 - #connection[ROOMS]
    end
  end
  if redis.call('EXISTS', key) == 1 then return budget, false end
  redis.call('ZREM', K.lost, generation)
  return budget, true
end

-- Kinds of change, as store_redis.py reads them: {kind, user, name, rank, seen, data}
local CAME, WENT, STATUS, UPDATED = 1, 2, 3, 4

local function change(kind, user, seen)
  local record = user.record
  if not record then return {kind, user.id, '', 0, 0, ''} end
  return {kind, user.id, record[NAME], record[RANK], seen, record[DATA]}
end

local function difference(user, seen)
  local was, is = user.was, user.record
  if not is then return was and {change(WENT, user, seen)} or {} end
  if not was or was[1] ~= is[NAME] then return {change(CAME, user, seen)} end
  local changes = {}
  if was[3] ~= is[RANK] then changes[1] = change(STATUS, user, seen) end
  if was[2] ~= is[DATA] then changes[#changes + 1] = change(UPDATED, user, seen) end
  return changes
end

-- A user whom nothing holds any more: gone, out of all rooms too.
local function drop_if_gone(user)
  local record = user.record
  if not record or record[GHOST] > 0 or live_connections(record) > 0 then return end
  for _, room in ipairs(sorted_keys(rooms_of(user))) do
    rooms_to_change(user, room)[room] = nil
    redis.call('ZREM', K.room_graces, room_grace(user.id, room))
  end
  user.record = nil
  redis.call('HDEL', K.users, user.id)
  redis.call('ZREM', K.index, user.id)
  redis.call('ZREM', K.seen, user.id)
  redis.call('ZREM', K.user_graces, user.id)
end

local function write(user, now)
  local record = user.record
  if record then
    record[RANK] = strongest_rank(record)
    redis.call('HSET', K.users, user.id, cmsgpack.pack(record))
    if not user.was then redis.call('ZADD', K.index, 0, user.id) end
    if user.active then redis.call('ZADD', K.seen, now, user.id) end
  end
  if next(user.room_was) == nil then return end
  if next(user.rooms) == nil then
    redis.call('HDEL', K.memberships, user.id)
  else
    redis.call('HSET', K.memberships, user.id, cmsgpack.pack(user.rooms))
  end
end

-- Write every touched user, and return {outcome, epoch, version, changes, rooms, notices, again} packed, where
-- rooms are {room, version, changes} and notices {joined, user, name, room}.
local function settle(now, epoch, idle_room_ms, outcome, again)
  local changes, notices = {}, {}
  local room_changes, room_names, users_delta = {}, {}, {}

  local function in_room(room, one)
    if not room_changes[room] then
      room_changes[room] = {}
      room_names[#room_names + 1] = room
    end
    table.insert(room_changes[room], one)
  end

  for _, user in ipairs(touched) do
    drop_if_gone(user)
    write(user, now)
    local name = user.record and user.record[NAME] or user.was and user.was[1]
    for _, room in ipairs(sorted_keys(user.room_was)) do
      local was, is = user.room_was[room], user.rooms[room] ~= nil
      if was ~= is then
        redis.call(is and 'ZADD' or 'ZREM', members_key(room), unpack(is and {0, user.id} or {user.id}))
        users_delta[room] = (users_delta[room] or 0) + (is and 1 or -1)
        in_room(room, change(is and CAME or WENT, user, now))
        notices[#notices + 1] = {is, user.id, name, room}
      end
    end
    local told = difference(user, now)
    if user.record and #told > 0 then
      for _, room in ipairs(sorted_keys(rooms_of(user))) do
        if user.room_was[room] ~= false then
          for _, one in ipairs(told) do in_room(room, one) end
        end
      end
    end
    for _, one in ipairs(told) do changes[#changes + 1] = one end
  end

  local clock = read_counter('clock')
  local total, rooms = #changes, {}
  for i, room in ipairs(room_names) do
    local count = #room_changes[room]
    local version = tonumber(redis.call('HGET', K.room_versions, room) or clock) + count
    redis.call('HSET', K.room_versions, room, version)
    total = total + count
    rooms[i] = {room, version, room_changes[room]}
  end
  for room, delta in pairs(room_connection_delta) do
    if delta ~= 0 then redis.call('HINCRBY', K.room_connections, room, delta) end
  end
  for room, delta in pairs(users_delta) do
    if tonumber(redis.call('ZINCRBY', K.rooms, delta, room)) == 0 then
      redis.call('ZREM', K.rooms, room)
      redis.call('HDEL', K.room_connections, room)
      redis.call('ZADD', K.idle_rooms, now + idle_room_ms, room)
    else
      redis.call('ZREM', K.idle_rooms, room)
    end
  end
  if connection_delta ~= 0 then redis.call('HINCRBY', K.meta, 'connections', connection_delta) end
  if total > 0 then redis.call('HINCRBY', K.meta, 'clock', total) end
  local version
  if #changes > 0 then
    version = redis.call('HINCRBY', K.meta, 'version', #changes)
  else
    version = read_counter('version')
  end
  return cmsgpack.pack({outcome, epoch, version, changes, rooms, notices, again})
end
