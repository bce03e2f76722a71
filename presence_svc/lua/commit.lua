-- Net changes: users touched by a script, as they were and as they are; their versions; and what waits for others to
-- hear of it. Follows change_set.lua.

-- Kinds of change, as store.py reads them: {kind, user, name, rank, seen, data}
local CAME, WENT, STATUS, UPDATED = 1, 2, 3, 4

-- Kinds of event for webhooks; P.hooks is the sum of those wanted.
local USER_ONLINE, USER_OFFLINE, ROOM_OCCUPIED, ROOM_VACATED = 1, 2, 4, 8

local function change(kind, user)
  local record = user.record
  if not record then return {kind, user.id, '', 0, 0, ''} end
  local seen = 0
  if kind == CAME then
    seen = user.seen or 0
    -- Somebody known: what they did since may be later than what an announcement says.
    if user.was then seen = math.max(seen, tonumber(redis.call('ZSCORE', K.seen, user.id) or 0)) end
  end
  return {kind, user.id, record[NAME], record[RANK], seen, record[DATA]}
end

local function difference(user)
  local was, is = user.was, user.record
  if not is then return was and {change(WENT, user)} or {} end
  if not was or was[1] ~= is[NAME] then return {change(CAME, user)} end
  local changes = {}
  if was[3] ~= is[RANK] then changes[1] = change(STATUS, user) end
  if was[2] ~= is[DATA] then changes[#changes + 1] = change(UPDATED, user) end
  return changes
end

local hook_events = {}
local function hook(kind, about, name)
  if bit.band(P.hooks, kind) ~= 0 then hook_events[#hook_events + 1] = {kind, about, name} end
end

local function queue_hooks()
  if #hook_events == 0 then return end
  local number = redis.call('HINCRBY', K.meta, 'hook', #hook_events) - #hook_events
  for i, event in ipairs(hook_events) do
    redis.call('ZADD', K.hooks, number + i,
               cmsgpack.pack({number + i, event[1], event[2], event[3], now}))
  end
  local excess = redis.call('ZCARD', K.hooks) - P.hooks_kept
  if excess > 0 then redis.call('ZREMRANGEBYRANK', K.hooks, 0, excess - 1) end
end

-- Return the size of a scope of which only counts are told, -1 of the others. It takes a tenth less than the limit to
-- come back, so that a scope at its limit does not change with everyone who comes and goes.
local function count_if_large(scope, size, limit)
  if limit <= 0 then return -1 end
  local large = redis.call('SISMEMBER', K.large, scope) == 1
  if not large and size > limit then
    redis.call('SADD', K.large, scope)
    large = true
  elseif large and size * 10 <= limit * 9 then
    redis.call('SREM', K.large, scope)
    large = false
  end
  return large and size or -1
end

local function forget_step(step)
  local bytes = redis.call('HSTRLEN', K.outbox, step)
  if bytes > 0 then
    redis.call('HDEL', K.outbox, step)
    redis.call('HINCRBY', K.meta, 'outbox_bytes', -bytes)
  end
  redis.call('ZREM', K.outbox_due, step)
end

-- Keep what a step changed until it has been published. Bounded: when the bus is away for so long that this does not
-- suffice, followers fetch everything anew anyway.
local function keep_step(step, settled)
  redis.call('HSET', K.outbox, step, settled)
  redis.call('ZADD', K.outbox_due, now + P.confirm_ms, step)
  local bytes = redis.call('HINCRBY', K.meta, 'outbox_bytes', #settled)
  while bytes > P.outbox_bytes do
    local oldest = redis.call('ZRANGE', K.outbox_due, 0, 0)[1]
    if not oldest then break end
    forget_step(oldest)
    bytes = read_counter('outbox_bytes')
  end
end

-- Write every touched user; return {outcome, epoch, version, changes, rooms, notices, again, count, step, mark} packed:
-- rooms     {room, version, changes, count}, where a change that is in `changes` too is its place there
-- notices   {joined, user, name, room}
-- count     users of the scope where it is large: its changes are left out then; else -1
-- step      by which to confirm that this was published, 0 where there is nothing to publish
-- mark      of the replica that called (see change_set.lua)
local function settle(outcome, again)
  local changes, notices = {}, {}
  local room_changes, room_names, users_delta = {}, {}, {}

  local function in_room(room, one, place)
    if not room_changes[room] then
      room_changes[room] = {}
      room_names[#room_names + 1] = room
    end
    table.insert(room_changes[room], {one, place})
  end

  for _, user in ipairs(touched) do
    drop_if_gone(user)
    write(user)
    local name = user.record and user.record[NAME] or user.was and user.was[1]
    local told = difference(user)
    local whole = told[1] and (told[1][1] == CAME or told[1][1] == WENT)
    for _, room in ipairs(sorted_keys(user.room_was)) do
      local was, is = user.room_was[room], user.rooms[room] ~= nil
      if was ~= is then
        if is then
          gather('ZADD', members_key(room), 0, user.id)
        else
          gather('ZREM', members_key(room), user.id)
        end
        users_delta[room] = (users_delta[room] or 0) + (is and 1 or -1)
        local kind = is and CAME or WENT
        if whole and told[1][1] == kind then
          in_room(room, told[1], #changes + 1)
        elseif is then
          in_room(room, change(CAME, user))
        else
          in_room(room, {WENT, user.id, '', 0, 0, ''})
        end
        notices[#notices + 1] = {is, user.id, name, room}
      end
    end
    if user.record and #told > 0 then
      for _, room in ipairs(sorted_keys(rooms_of(user))) do
        if user.room_was[room] ~= false then
          for i, one in ipairs(told) do in_room(room, one, #changes + i) end
        end
      end
    end
    for _, one in ipairs(told) do changes[#changes + 1] = one end
    if user.record and not user.was then hook(USER_ONLINE, user.id, name) end
    if user.was and not user.record then hook(USER_OFFLINE, user.id, name) end
  end
  carry_out()

  local version
  if #changes > 0 then
    version = redis.call('HINCRBY', K.meta, 'version', #changes)
  else
    version = read_counter('version')
  end
  local count = -1
  if #changes > 0 then count = count_if_large('', redis.call('ZCARD', K.index), P.online_limit) end

  local clock = read_counter('clock')
  local total, rooms, quiet = #changes, {}, {}
  for i, room in ipairs(room_names) do
    local made = #room_changes[room]
    local room_version = tonumber(redis.call('HGET', K.room_versions, room) or clock) + made
    redis.call('HSET', K.room_versions, room, room_version)
    total = total + made
    local delta, size = users_delta[room] or 0, nil
    if delta == 0 then
      size = tonumber(redis.call('ZSCORE', K.rooms, room) or 0)
    else
      size = tonumber(redis.call('ZINCRBY', K.rooms, delta, room))
      if size == delta then hook(ROOM_OCCUPIED, room, '') end
      if size == 0 then hook(ROOM_VACATED, room, '') end
    end
    if size == 0 then
      redis.call('ZREM', K.rooms, room)
      redis.call('ZADD', K.idle_rooms, now + P.idle_room_ms, room)
    else
      redis.call('ZREM', K.idle_rooms, room)
    end
    local room_count = count_if_large(room, size, P.room_limit)
    local told = {}
    if room_count < 0 then
      for n, one in ipairs(room_changes[room]) do told[n] = count < 0 and one[2] or one[1] end
    else
      quiet[room] = true
    end
    rooms[i] = {room, room_version, told, room_count}
  end
  for room, delta in pairs(room_connection_delta) do
    if delta ~= 0 and redis.call('HINCRBY', K.room_connections, room, delta) == 0 then
      redis.call('HDEL', K.room_connections, room)
    end
  end
  if connection_delta ~= 0 then redis.call('HINCRBY', K.meta, 'connections', connection_delta) end
  if total > 0 then redis.call('HINCRBY', K.meta, 'clock', total) end
  queue_hooks()

  if next(quiet) ~= nil then
    local audible = {}
    for _, notice in ipairs(notices) do
      if not quiet[notice[4]] then audible[#audible + 1] = notice end
    end
    notices = audible
  end
  local step = 0
  if total > 0 then
    step = redis.call('HINCRBY', K.meta, 'step', 1)
    mark = mark + 1
    redis.call('SET', mark_key, mark, 'PX', MARK_KEPT_MS)
  end
  local settled = cmsgpack.pack({outcome, epoch, version, count < 0 and changes or {}, rooms, notices, again, count,
                                 step, mark})
  if step > 0 then keep_step(step, settled) end
  return settled
end
