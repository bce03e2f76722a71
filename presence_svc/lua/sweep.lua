-- Expire what is due: leases that were not renewed, connections that are lost, graces that have ended; and return
-- commits whose publication was not acknowledged.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  policy, ARGV[2] new epoch, ARGV[3] fixed time, ARGV[4] to ARGV[7] the replica (see change_set.lua)
--
-- Returns the answer of commit() (see commit.lua), and after it the same of earlier commits that are not acknowledged.
-- Any number of processes may sweep: what one has expired, another does not find.

local UNACKED_PER_CALL = 20

redis.call('PEXPIRE', mark_key, MARK_KEPT_MS)

-- After a while without sweeps, renewals of leases and reconnects may not have reached this store either. Gateways get
-- time to report them before anything expires.
local last_sweep = tonumber(redis.call('HGET', keys.meta, 'swept') or now)
redis.call('HSET', keys.meta, 'swept', now)
if policy.recovery_pause_ms > 0 and now - last_sweep > policy.outage_after_ms then
  redis.call('HSET', keys.meta, 'hold', now + policy.recovery_pause_ms)
  for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', keys.lease_due, '-inf', now + policy.recovery_pause_ms)) do
    redis.call('ZADD', keys.lease_due, now + policy.recovery_pause_ms, gateway)
  end
end
local paused = policy.recovery_pause_ms > 0 and now < read_counter('hold')

if not paused then
  for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', keys.lease_due, '-inf', now)) do
    local lease = redis.call('HGET', keys.leases, gateway)
    local generation = lease and cmsgpack.unpack(lease)[3] or 0
    if generation ~= 0 then redis.call('ZADD', keys.lost, now, generation) end
    redis.call('HDEL', keys.leases, gateway)
    redis.call('ZREM', keys.lease_due, gateway)
  end

  while work < policy.work do
    local lost = redis.call('ZRANGEBYSCORE', keys.lost, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
    if #lost == 0 then break end
    expire_generation(lost[1], tonumber(lost[2]))
  end
end

local function due(key)
  if paused or work >= policy.work then return {} end
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, policy.work - work)
end

-- Users first: a user who goes offline leaves all rooms in the same step, which removes their room graces too.
for _, user_id in ipairs(due(keys.user_graces)) do
  if work >= policy.work then break end
  work = work + 1
  redis.call('ZREM', keys.user_graces, user_id)
  local user = track(user_id)
  if user.record then
    user.record[LINGERING] = 0
    if live_connections(user.record) > 0 then count_announcement(user) end
    drop_if_gone(user)
  end
end

for _, member in ipairs(due(keys.room_graces)) do
  work = work + 1
  local user_id, room = parse_room_grace(member)
  redis.call('ZREM', keys.room_graces, member)
  local user = track(user_id)
  if rooms_of(user)[room] == 0 then end_membership(user, room) end
end

for _, room in ipairs(due(keys.idle_rooms)) do
  work = work + 1
  redis.call('ZREM', keys.idle_rooms, room)
  redis.call('HDEL', keys.room_versions, room)
  redis.call('SREM', keys.large, room)
  redis.call('DEL', member_data_key(room))  -- of memberships that an earlier version ended
end

-- Only notices that are still true are published late, and no diff of an earlier epoch: followers have a snapshot since.
local function unacked(id)
  local earlier = cmsgpack.unpack(redis.call('HGET', keys.outbox, id))
  if earlier[2] ~= epoch then earlier[4], earlier[5], earlier[8] = {}, {}, -1 end
  local notices = {}
  for _, notice in ipairs(earlier[6]) do
    local is_member = redis.call('ZSCORE', members_key(notice[4]), notice[2]) ~= false
    if is_member == notice[1] then notices[#notices + 1] = notice end
  end
  earlier[6] = notices
  redis.call('ZADD', keys.outbox_due, now + policy.ack_within_ms, id)
  return cmsgpack.pack(earlier)
end

local answer = {commit(0, work >= policy.work)}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys.outbox_due, '-inf', now, 'LIMIT', 0, UNACKED_PER_CALL)) do
  if redis.call('HEXISTS', keys.outbox, id) == 1 then
    answer[#answer + 1] = unacked(id)
  else
    redis.call('ZREM', keys.outbox_due, id)
  end
end
return answer
