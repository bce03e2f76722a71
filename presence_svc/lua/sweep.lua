-- Let go what is due: leases that were not renewed, connections that are lost, graces that have run out; and return
-- what others published, or did not live to publish.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  policy, ARGV[2] new epoch, ARGV[3] fixed time, ARGV[4] to ARGV[7] the replica (see change_set.lua)
--
-- Returns what settle() does (see commit.lua), and after it the same of earlier steps that nobody confirmed in time.
-- Any number of processes may sweep: what one has taken, another does not find.

local OVERDUE_PER_CALL = 20

redis.call('PEXPIRE', mark_key, MARK_KEPT_MS)

-- When nobody swept for a while, nobody renewed leases or came back either, as far as this store heard. They get the
-- time to say so before anything is let go.
local last_sweep = tonumber(redis.call('HGET', K.meta, 'swept') or now)
redis.call('HSET', K.meta, 'swept', now)
if P.hold_ms > 0 and now - last_sweep > P.outage_ms then
  redis.call('HSET', K.meta, 'hold', now + P.hold_ms)
  for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', K.lease_due, '-inf', now + P.hold_ms)) do
    redis.call('ZADD', K.lease_due, now + P.hold_ms, gateway)
  end
end
local holding = P.hold_ms > 0 and now < read_counter('hold')

if not holding then
  for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', K.lease_due, '-inf', now)) do
    local lease = redis.call('HGET', K.leases, gateway)
    local generation = lease and cmsgpack.unpack(lease)[3] or 0
    if generation ~= 0 then redis.call('ZADD', K.lost, now, generation) end
    redis.call('HDEL', K.leases, gateway)
    redis.call('ZREM', K.lease_due, gateway)
  end

  while work < P.work do
    local lost = redis.call('ZRANGEBYSCORE', K.lost, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
    if #lost == 0 then break end
    let_go(lost[1], tonumber(lost[2]))
  end
end

local function due(key)
  if holding or work >= P.work then return {} end
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, P.work - work)
end

-- Users first: who goes leaves all rooms in the same step, and their room graces with them.
for _, user_id in ipairs(due(K.user_graces)) do
  if work >= P.work then break end
  work = work + 1
  redis.call('ZREM', K.user_graces, user_id)
  local user = touch(user_id)
  if user.record then
    user.record[GHOST] = 0
    if live_connections(user.record) > 0 then will_be_told(user) end
    drop_if_gone(user)
  end
end

for _, member in ipairs(due(K.room_graces)) do
  work = work + 1
  local user_id, room = parse_room_grace(member)
  redis.call('ZREM', K.room_graces, member)
  local user = touch(user_id)
  if rooms_of(user)[room] == 0 then rooms_to_change(user, room)[room] = nil end
end

for _, room in ipairs(due(K.idle_rooms)) do
  work = work + 1
  redis.call('ZREM', K.idle_rooms, room)
  redis.call('HDEL', K.room_versions, room)
  redis.call('SREM', K.large, room)
end

-- What is published late tells only what still holds. A diff of an earlier epoch helps nobody.
local function overdue(step)
  local settled = cmsgpack.unpack(redis.call('HGET', K.outbox, step))
  if settled[2] ~= epoch then settled[4], settled[5], settled[8] = {}, {}, -1 end
  local notices = {}
  for _, notice in ipairs(settled[6]) do
    local there = redis.call('ZSCORE', members_key(notice[4]), notice[2]) ~= false
    if there == notice[1] then notices[#notices + 1] = notice end
  end
  settled[6] = notices
  redis.call('ZADD', K.outbox_due, now + P.confirm_ms, step)
  return cmsgpack.pack(settled)
end

local answer = {settle(0, work >= P.work)}
for _, step in ipairs(redis.call('ZRANGEBYSCORE', K.outbox_due, '-inf', now, 'LIMIT', 0, OVERDUE_PER_CALL)) do
  if redis.call('HEXISTS', K.outbox, step) == 1 then
    answer[#answer + 1] = overdue(step)
  else
    redis.call('ZREM', K.outbox_due, step)
  end
end
return answer
