-- Net changes of a change set, before and after; their versions; the outbox and the webhook queue. Follows
-- change_set.lua.

-- Kinds of change, as store.py reads them: {kind, user, name, rank, seen, data, member data}, the last in rooms alone
local ONLINE_CHANGE, OFFLINE_CHANGE, STATUS, UPDATED = 1, 2, 3, 4

-- Kinds of webhook events; policy.events is the sum of those that are kept.
local USER_ONLINE, USER_OFFLINE, ROOM_OCCUPIED, ROOM_VACATED, MEMBER_JOINED, MEMBER_LEFT = 1, 2, 4, 8, 16, 32

local function change(kind, user)
  local record = user.record
  if not record then return {kind, user.id, '', 0, 0, ''} end
  local seen = 0
  if kind == ONLINE_CHANGE then
    seen = user.seen or 0
    -- A user who was online already: their last activity may be later than in this announcement.
    if user.before then seen = math.max(seen, tonumber(redis.call('ZSCORE', keys.seen, user.id) or 0)) end
  end
  return {kind, user.id, record[NAME], record[RANK], seen, record[DATA]}
end

local function diff(user)
  local before, after = user.before, user.record
  if not after then return before and {change(OFFLINE_CHANGE, user)} or {} end
  if not before or before[1] ~= after[NAME] then return {change(ONLINE_CHANGE, user)} end
  local changes = {}
  if before[3] ~= after[RANK] then changes[1] = change(STATUS, user) end
  if before[2] ~= after[DATA] then changes[#changes + 1] = change(UPDATED, user) end
  return changes
end

local events = {}
local function note_event(kind, subject, name, room)
  if bit.band(policy.events, kind) ~= 0 then events[#events + 1] = {kind, subject, name, room} end
end

local function queue_events()
  if #events == 0 then return end
  local number = redis.call('HINCRBY', keys.meta, 'hook', #events) - #events
  for i, event in ipairs(events) do
    redis.call('ZADD', keys.hooks, number + i,
               cmsgpack.pack({number + i, event[1], event[2], event[3], now, event[4]}))
  end
  local excess = redis.call('ZCARD', keys.hooks) - policy.events_kept
  if excess > 0 then redis.call('ZREMRANGEBYRANK', keys.hooks, 0, excess - 1) end
end

-- Return the size of a scope of which only counts are announced, -1 of others. Full changes resume a tenth below the
-- limit, so that a scope at its limit does not switch with each join and leave.
local function count_if_over_limit(scope, size, limit)
  if limit <= 0 then return -1 end
  local counts_only = redis.call('SISMEMBER', keys.large, scope) == 1
  if not counts_only and size > limit then
    redis.call('SADD', keys.large, scope)
    counts_only = true
  elseif counts_only and size * 10 <= limit * 9 then
    redis.call('SREM', keys.large, scope)
    counts_only = false
  end
  return counts_only and size or -1
end

-- Keep the changes of a commit until they have been published. Bounded: after an outage of the bus that exceeds this,
-- followers fetch snapshots anyway.
local function keep_commit(id, packed)
  redis.call('HSET', keys.outbox, id, packed)
  redis.call('ZADD', keys.outbox_due, now + policy.ack_within_ms, id)
  local bytes = redis.call('HINCRBY', keys.meta, 'outbox_bytes', #packed)
  while bytes > policy.outbox_bytes do
    local oldest = redis.call('ZRANGE', keys.outbox_due, 0, 0)[1]
    if not oldest then break end
    forget_commit(oldest)
    bytes = read_counter('outbox_bytes')
  end
end

-- Write the change set; return {result, epoch, version, changes, rooms, notices, more, count, commit id, mark, shown}
-- packed:
-- rooms      {room, version, changes, count}, where a change that is in `changes` too is its index there
-- notices    {joined, user, name, room}
-- more       true where the same call is to be repeated
-- count      users of a scope over its limit: its changes are left out then; else -1
-- commit id  by which to acknowledge that this was published, 0 where there is nothing to publish
-- mark       of the calling replica (see change_set.lua)
-- shown      {user, room, member data}, of notices of joins
local function commit(result, more)
  local changes, notices, shown_data = {}, {}, {}
  local room_changes, room_names, users_delta = {}, {}, {}

  local function in_room(room, one, index)
    if not room_changes[room] then
      room_changes[room] = {}
      room_names[#room_names + 1] = room
    end
    table.insert(room_changes[room], {one, index})
  end

  -- The user as members of the room see them.
  local function online_in(user, room, data)
    local one = change(ONLINE_CHANGE, user)
    one[7] = data
    in_room(room, one)
  end

  for _, user in ipairs(dirty) do
    drop_if_gone(user)
    write(user)
    local name = user.record and user.record[NAME] or user.before and user.before[1]
    local user_changes = diff(user)
    local first = user_changes[1]
    if user.record and not user.before then note_event(USER_ONLINE, user.id, name) end
    for _, room in ipairs(sorted_names(user.room_before)) do
      local after = user.rooms[room] ~= nil
      if user.room_before[room] ~= after then
        if after then
          gather('ZADD', members_key(room), 0, user.id)
        else
          gather('ZREM', members_key(room), user.id)
        end
        users_delta[room] = (users_delta[room] or 0) + (after and 1 or -1)
        local kind = after and ONLINE_CHANGE or OFFLINE_CHANGE
        local data = after and has_member_data(room) and member_data(user, room)[1] or ''
        if data ~= '' then
          online_in(user, room, data)
          shown_data[#shown_data + 1] = {user.id, room, data}
        elseif first and first[1] == kind then
          in_room(room, first, #changes + 1)
        elseif after then
          in_room(room, change(ONLINE_CHANGE, user))
        else
          in_room(room, {OFFLINE_CHANGE, user.id, '', 0, 0, ''})
        end
        notices[#notices + 1] = {after, user.id, name, room}
        note_event(after and MEMBER_JOINED or MEMBER_LEFT, user.id, name, room)
      elseif after and user.member_data and user.member_data[room] then
        local shown = user.member_data[room]
        if shown[1] ~= shown[3] then online_in(user, room, shown[1]) end
      end
    end
    if user.record and first then
      for _, room in ipairs(sorted_names(rooms_of(user))) do
        local shown = user.member_data and user.member_data[room]
        if user.room_before[room] ~= false and not (shown and shown[1] ~= shown[3]) then
          local data = first[1] == ONLINE_CHANGE and has_member_data(room) and member_data(user, room)[1] or ''
          if data ~= '' then
            online_in(user, room, data)
          else
            for i, one in ipairs(user_changes) do in_room(room, one, #changes + i) end
          end
        end
      end
    end
    write_member_data(user)
    for _, one in ipairs(user_changes) do changes[#changes + 1] = one end
    if user.before and not user.record then note_event(USER_OFFLINE, user.id, name) end
  end
  write_gathered()

  local version
  if #changes > 0 then
    version = redis.call('HINCRBY', keys.meta, 'version', #changes)
  else
    version = read_counter('version')
  end
  local count = -1
  if #changes > 0 then count = count_if_over_limit('', redis.call('ZCARD', keys.index), policy.online_limit) end

  local clock = read_counter('clock')
  local total, rooms, muted = #changes, {}, {}
  for i, room in ipairs(room_names) do
    local made = #room_changes[room]
    local room_version = tonumber(redis.call('HGET', keys.room_versions, room) or clock) + made
    redis.call('HSET', keys.room_versions, room, room_version)
    total = total + made
    local delta, size = users_delta[room] or 0, nil
    if delta == 0 then
      size = tonumber(redis.call('ZSCORE', keys.rooms, room) or 0)
    else
      size = tonumber(redis.call('ZINCRBY', keys.rooms, delta, room))
      if size == delta then note_event(ROOM_OCCUPIED, room, '') end
      if size == 0 then note_event(ROOM_VACATED, room, '') end
    end
    if size == 0 then
      redis.call('ZREM', keys.rooms, room)
      redis.call('ZADD', keys.idle_rooms, now + policy.idle_room_ms, room)
    else
      redis.call('ZREM', keys.idle_rooms, room)
    end
    local room_count = count_if_over_limit(room, size, policy.room_limit)
    local shown = {}
    if room_count < 0 then
      for n, one in ipairs(room_changes[room]) do shown[n] = count < 0 and one[2] or one[1] end
    else
      muted[room] = true
    end
    rooms[i] = {room, room_version, shown, room_count}
  end
  for room, delta in pairs(room_connection_delta) do
    if delta ~= 0 and redis.call('HINCRBY', keys.room_connections, room, delta) == 0 then
      redis.call('HDEL', keys.room_connections, room)
    end
  end
  if connection_delta ~= 0 then redis.call('HINCRBY', keys.meta, 'connections', connection_delta) end
  if total > 0 then redis.call('HINCRBY', keys.meta, 'clock', total) end
  queue_events()

  if next(muted) ~= nil then
    local audible = {}
    for _, notice in ipairs(notices) do
      if not muted[notice[4]] then audible[#audible + 1] = notice end
    end
    notices = audible
  end
  local id = 0
  if total > 0 then
    id = redis.call('HINCRBY', keys.meta, 'step', 1)
    mark = mark + 1
    redis.call('SET', mark_key, mark, 'PX', MARK_KEPT_MS)
  end
  local packed = cmsgpack.pack({result, epoch, version, count < 0 and changes or {}, rooms, notices, more, count,
                                id, mark, shown_data})
  if id > 0 then keep_commit(id, packed) end
  return packed
end
