-- Compare counts with what they count, of all and of some rooms chosen at random; correct the wrong ones.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  limit of rooms
-- ARGV[2]  limit of memberships to count connections from; rooms with more members are skipped
--
-- Returns the number of wrong counts. A count changes with what it counts; a wrong one would never heal by itself.

local wrong = 0

local connections = 0
local function add(generation)
  if generation ~= 0 then connections = connections + redis.call('HLEN', connections_key(generation)) end
end
local leases = redis.call('HVALS', keys.leases)
for _, packed in ipairs(leases) do add(cmsgpack.unpack(packed)[3]) end
for _, generation in ipairs(redis.call('ZRANGE', keys.lost, 0, -1)) do add(generation) end
if connections ~= read_counter('connections') then
  redis.call('HSET', keys.meta, 'connections', connections)
  wrong = wrong + 1
end

local left = tonumber(ARGV[2])

local function audit(room)
  local size = redis.call('ZCARD', members_key(room))
  if size ~= tonumber(redis.call('ZSCORE', keys.rooms, room) or 0) then
    wrong = wrong + 1
    if size == 0 then redis.call('ZREM', keys.rooms, room) else redis.call('ZADD', keys.rooms, size, room) end
  end
  if size > left then return end
  left = left - size
  local live = 0
  if size > 0 then
    local members = redis.call('ZRANGE', members_key(room), 0, -1)
    for _, packed in ipairs(redis.call('HMGET', keys.memberships, unpack(members))) do
      if packed then live = live + (cmsgpack.unpack(packed)[room] or 0) end
    end
  end
  if live ~= tonumber(redis.call('HGET', keys.room_connections, room) or 0) then
    wrong = wrong + 1
    if live == 0 then
      redis.call('HDEL', keys.room_connections, room)
    else
      redis.call('HSET', keys.room_connections, room, live)
    end
  end
end

-- Every room with members has a version.
for _, room in ipairs(redis.call('HRANDFIELD', keys.room_versions, ARGV[1])) do audit(room) end
return wrong
