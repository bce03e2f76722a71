-- Return a page of users: of everyone, of a room, or those named.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the room, or '' for everyone
-- ARGV[2]  the user before the page, or ''
-- ARGV[3]  limit of users
-- ARGV[4]  ms for which the version of an empty room is kept
-- ARGV[5]  a new epoch, taken for a follower when the keyspace is empty
-- ARGV[6]  a fixed time in ms for tests, else 0
-- ARGV[7]  pack{user, ...} to return those of them in the scope, sorted by the caller; or '' for a range
-- ARGV[8]  the limit above which only counts are announced (see commit.lua), or 0
-- ARGV[9]  '1' for a follower of the scope from here: no users where only counts are announced
--
-- Returns {epoch, version, pack{user, ...}, pack{record, ...}, seen, more, count, counts_only, pack{member data, ...}},
-- with records and member data as in state.lua, of member data none or those of all users (false where there is none); `seen` is the times, separated by blanks; more is 1 if users follow; count is the scope's size; counts_only
-- is 1 where only counts are announced.
-- Packed, because a client parses three replies far sooner than 3,000.
--
-- Only a follower's call writes: it pins the version of an empty room for a while, so that no second snapshot is needed
-- when the first user joins. Other calls leave the store as it is, whatever rooms they name.

local room, limit, follows = ARGV[1], tonumber(ARGV[3]), ARGV[9] == '1'
local epoch = follows and read_epoch(ARGV[5]) or redis.call('HGET', keys.meta, 'epoch') or ''
local scope = room == '' and keys.index or members_key(room)

local version
if room == '' then
  version = read_counter('version')
else
  version = redis.call('HGET', keys.room_versions, room)
  if follows and not version then
    version = read_counter('clock')
    redis.call('HSET', keys.room_versions, room, version)
  end
  if follows and redis.call('EXISTS', scope) == 0 then
    redis.call('ZADD', keys.idle_rooms, read_clock(ARGV[6]) + tonumber(ARGV[4]), room)
  end
  version = version or read_counter('clock')
end

local ids, more = {}, 0
local counts_only = tonumber(ARGV[8]) > 0 and redis.call('SISMEMBER', keys.large, room) or 0
if follows and counts_only == 1 then
  ids = {}
elseif ARGV[7] ~= '' then
  for _, id in ipairs(cmsgpack.unpack(ARGV[7])) do
    if redis.call('ZSCORE', scope, id) then ids[#ids + 1] = id end
  end
else
  local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
  ids = redis.call('ZRANGEBYLEX', scope, after, '+', 'LIMIT', 0, limit + 1)
  if #ids > limit then
    table.remove(ids)
    more = 1
  end
end

local records, seen = {}, {}
if #ids > 0 then
  records = redis.call('HMGET', keys.users, unpack(ids))
  seen = redis.call('ZMSCORE', keys.seen, unpack(ids))
end
local member_data = {}
if #ids > 0 and room ~= '' and redis.call('EXISTS', member_data_key(room)) == 1 then
  member_data = redis.call('HMGET', member_data_key(room), unpack(ids))
end
-- The records are packed already: an array of them is its head (MessagePack array 32) and they, one after the other.
local packed_records = string.char(0xdd) .. struct.pack('>I4', #records) .. table.concat(records)
return {epoch, tonumber(version), cmsgpack.pack(ids), packed_records, table.concat(seen, ' '), more,
        redis.call('ZCARD', scope), counts_only, cmsgpack.pack(member_data)}
