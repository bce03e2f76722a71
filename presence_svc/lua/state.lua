-- Presence state: keys and records. Prepended to every script; changes nothing by itself.
--
-- KEYS[1]  base, `{PREFIX:presence}`. Every other key is derived from it, so all of them share its hash tag and
--          therefore its cluster slot; that is why scripts may access keys that are not in KEYS.
--
-- base:meta              hash    epoch, version (of everyone), clock (rises with every change of any scope, so a
--                                room's version can start there and never repeat), generation, connections, step (the
--                                last commit id), outbox_bytes, hook (the last webhook event), swept and hold (ms: the
--                                last sweep, and until when nothing expires after an outage)
-- base:leases            hash    gateway -> pack{incarnation, batch, generation, leaving, {past incarnations}, done};
--                                generation 0: being opened, while `leaving`, the generation before, expires; `done`
--                                operations of the next batch have been applied
-- base:lease_due         zset    gateway by ms
-- base:lost              zset    generation by ms: connections lost from then on, and not expired yet
-- base:connections:GEN   hash    connection -> pack{user, rank, {room, ...}}
-- base:users             hash    user -> pack{name, data, rank, lingering, away, online, busy, data_at}: `rank` is the
--                                status seen by others; `lingering` the strongest of lost connections in their grace,
--                                or 0; the next three count live connections by status; `data_at` is when `data` was set
-- base:index             zset    user by 0, for pages in lexical order
-- base:seen              zset    user by ms of last activity
-- base:user_graces       zset    user by ms
-- base:memberships       hash    user -> pack{room -> live connections there}; 0 while only a grace holds it
-- base:room_graces       zset    LENGTH:user..room by ms
-- base:members:ROOM      zset    user by 0
-- base:member_data:ROOM  hash    user -> MS DATA: what the user showed with a join of the room, as JSON, and when it was
--                                set; only of members, and only where there is such data
-- base:rooms             zset    room by number of users
-- base:room_connections  hash    room -> live connections
-- base:room_versions     hash    room -> version
-- base:idle_rooms        zset    room by ms: when the version of an empty room may be forgotten
-- base:large             set     rooms over their limit, of which only counts are announced; '' is everyone
-- base:outbox            hash    commit id -> its changes, until their publication is acknowledged
-- base:outbox_due        zset    commit id by ms: when another replica publishes it
-- base:mark:REPLICA      string  commits of this replica (see change_set.lua); for a day after the last
-- base:hooks             zset    pack{number, kind, user or room, name, ms, room} by number: events for webhooks; the
--                                last only where the third is the user
-- base:hook_targets      hash    target -> pack{last number delivered, owner, ms until which it may deliver}

local keys = {}
for _, name in ipairs({'meta', 'leases', 'lease_due', 'lost', 'users', 'index', 'seen', 'user_graces', 'memberships',
                       'room_graces', 'rooms', 'room_connections', 'room_versions', 'idle_rooms', 'large', 'outbox',
                       'outbox_due', 'hooks', 'hook_targets'}) do
  keys[name] = KEYS[1] .. ':' .. name
end

local function connections_key(generation) return KEYS[1] .. ':connections:' .. generation end
local function members_key(room) return KEYS[1] .. ':members:' .. room end
local function member_data_key(room) return KEYS[1] .. ':member_data:' .. room end

-- One clock for everything: the server's. Tests pass a fixed time instead.
local function read_clock(fixed)
  fixed = tonumber(fixed)
  if fixed > 0 then return fixed end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The epoch of this keyspace; an empty one (new, or its data lost) takes the candidate.
local function read_epoch(candidate)
  redis.call('HSETNX', keys.meta, 'epoch', candidate)
  return redis.call('HGET', keys.meta, 'epoch')
end

local function read_counter(name) return tonumber(redis.call('HGET', keys.meta, name) or 0) end

-- The length keeps (user, room) pairs apart whatever characters the names have.
local function room_grace(user, room) return #user .. ':' .. user .. room end
local function parse_room_grace(member)
  local length, rest = string.match(member, '^(%d+):(.*)$')
  return string.sub(rest, 1, tonumber(length)), string.sub(rest, tonumber(length) + 1)
end

-- Return what a value of member_data has: the data, and when it was set; '' and 0 of none.
local function parse_member_data(value)
  if not value then return '', 0 end
  local at, data = string.match(value, '^(%d+) (.*)$')
  return data, tonumber(at)
end

-- Forget a commit whose changes have been published.
local function forget_commit(id)
  local bytes = redis.call('HSTRLEN', keys.outbox, id)
  if bytes > 0 then
    redis.call('HDEL', keys.outbox, id)
    redis.call('HINCRBY', keys.meta, 'outbox_bytes', -bytes)
  end
  redis.call('ZREM', keys.outbox_due, id)
end

-- Fields of a user's record, and of a connection's.
local NAME, DATA, RANK, LINGERING, DATA_AT = 1, 2, 3, 4, 8
local COUNTS = 4  -- the count of rank r is at COUNTS + r
local USER_ID, OWN_RANK, ROOMS = 1, 2, 3
local ONLINE = 2
