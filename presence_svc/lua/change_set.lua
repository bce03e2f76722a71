-- Users touched by a script: loaded once, changed in Lua, written once by settle(). Follows state.lua in scripts that
-- write.
--
-- ARGV[1]  the policy: pack of a map (see store.py)
-- ARGV[2]  a new epoch, taken when the keyspace is empty or has lost data
-- ARGV[3]  a fixed time in ms for tests, else 0
-- ARGV[4]  the replica that calls, and what it was answered last: ARGV[5] the epoch, ARGV[6] its highest mark in it,
--          ARGV[7] the highest version in it

local P = cmsgpack.unpack(ARGV[1])
local epoch, now = read_epoch(ARGV[2]), read_clock(ARGV[3])

local function begin_epoch()
  epoch = ARGV[2]
  redis.call('HSET', K.meta, 'epoch', epoch)
end

-- A mark counts a replica's steps that changed something. A store that knows fewer of them than the replica was answered
-- has lost its last writes (a failover, a restore) and will give their versions a second time, to other changes. A new
-- epoch makes every follower ask again. The version says the same for steps of a replica that is no more.
local MARK_KEPT_MS = 86400000
local mark_key = KEYS[1] .. ':mark:' .. ARGV[4]
local mark = tonumber(redis.call('GET', mark_key) or 0)
if epoch == ARGV[5] and (mark < tonumber(ARGV[6]) or read_counter('version') < tonumber(ARGV[7])) then begin_epoch() end

-- What this call has done, in connections, memberships and changes: some 30 us of Redis' time each. At P.work it
-- stops, and is called again, so that others get their turn.
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

local function carry_out()
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

local touched, by_id = {}, {}
local fetched_users = {}
local connection_delta, room_connection_delta = 0, {}

local function touch(id)
  local user = by_id[id]
  if user then return user end
  user = {id = id, room_was = {}}
  local packed = fetched_users[id]
  if packed == nil then packed = redis.call('HGET', K.users, id) end
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

-- A change of this user will be told in all their rooms: that is work, counted once.
local function will_be_told(user)
  if user.counted or not user.was then return end
  user.counted = true
  for _ in pairs(rooms_of(user)) do work = work + 1 end
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

local function at_once(command, key, score, member) redis.call('ZADD', key, 'GT', score, member) end

-- Take a connection away: lost, with a grace until grace_due, or without (nil) where it closed cleanly. `add` is how
-- graces are written: at_once, where what follows may look at them or end them, or gather.
local function disconnect(connection, grace_due, add)
  local user = touch(connection[OWNER])
  work = work + 1 + #connection[ROOMS]
  connection_delta = connection_delta - 1
  for _, room in ipairs(connection[ROOMS]) do
    local rooms = rooms_to_change(user, room)
    rooms[room] = rooms[room] - 1
    count_connections(room, -1)
    if grace_due then
      add('ZADD GT', K.room_graces, grace_due, room_grace(user.id, room))
    elseif rooms[room] == 0 and not redis.call('ZSCORE', K.room_graces, room_grace(user.id, room)) then
      rooms[room] = nil
    end
  end
  local record = user.record
  record[COUNTS + connection[CHOSEN]] = record[COUNTS + connection[CHOSEN]] - 1
  if grace_due then
    record[GHOST] = math.max(record[GHOST], connection[CHOSEN])
    add('ZADD GT', K.user_graces, grace_due, user.id)
  end
end

-- Let go connections of a lost generation while there is work to spare. Returns whether the generation is gone.
local function let_go(generation, lost_at)
  local key = connections_key(generation)
  local grace_due = nil
  if P.grace_ms > 0 then grace_due = lost_at + P.grace_ms end
  while work < P.work do
    local found = redis.call('HRANDFIELD', key, math.min(P.work - work, 50), 'WITHVALUES')
    if #found == 0 then break end
    local gone = {}
    for i = 1, #found, 2 do
      disconnect(cmsgpack.unpack(found[i + 1]), grace_due, gather)
      gone[#gone + 1] = found[i]
    end
    redis.call('HDEL', key, unpack(gone))
  end
  carry_out()
  if redis.call('EXISTS', key) == 1 then return false end
  redis.call('ZREM', K.lost, generation)
  return true
end

-- A user whom nothing holds any more: gone, out of all rooms too.
local function drop_if_gone(user)
  local record = user.record
  if not record or record[GHOST] > 0 or live_connections(record) > 0 then return end
  for _, room in ipairs(sorted_keys(rooms_of(user))) do
    rooms_to_change(user, room)[room] = nil
    work = work + 1
    gather('ZREM', K.room_graces, room_grace(user.id, room))
  end
  user.record = nil
  gather('HDEL', K.users, user.id)
  gather('ZREM', K.index, user.id)
  gather('ZREM', K.seen, user.id)
  gather('ZREM', K.user_graces, user.id)
end

local function write(user)
  local record = user.record
  if record then
    record[RANK] = strongest_rank(record)
    gather('HSET', K.users, user.id, cmsgpack.pack(record))
    if not user.was then gather('ZADD', K.index, 0, user.id) end
    if user.seen then gather('ZADD GT', K.seen, user.seen, user.id) end
  end
  if next(user.room_was) == nil then return end
  if next(user.rooms) == nil then
    gather('HDEL', K.memberships, user.id)
  else
    gather('HSET', K.memberships, user.id, cmsgpack.pack(user.rooms))
  end
end
