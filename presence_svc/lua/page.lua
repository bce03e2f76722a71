-- Return a page of users: of everyone, of a room, or those asked for by name.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  the room, or '' for everyone
-- ARGV[2]  the user after whom the page starts, or ''
-- ARGV[3]  the most users to return
-- ARGV[4]  ms for which the version of an empty room is kept
-- ARGV[5]  a new epoch, taken by who follows from here when the keyspace is empty
-- ARGV[6]  a fixed time in ms for tests, else 0
-- ARGV[7]  pack{user, ...} to return those of them who are there, sorted by the caller; or '' for a range
-- ARGV[8]  the size above which the scope may be large (see commit.lua), or 0
-- ARGV[9]  '1' for who will follow the scope from here: no users of a large one
--
-- Returns {epoch, version, pack{user, ...}, pack{record, ...}, seen, more, count, large}, with records as in
-- state.lua; `seen` is the times, separated by blanks; more is 1 if users follow; count is the scope's size; large is 1
-- where only counts are told.
-- Packed, because a client parses three replies far sooner than 3,000.
--
-- Only who follows writes: the version of an empty room is kept for a while, so that no second snapshot is needed when
-- the first user comes in. Every other question leaves the store as it is, whatever rooms it names.

local room, limit, follows = ARGV[1], tonumber(ARGV[3]), ARGV[9] == '1'
local epoch = follows and read_epoch(ARGV[5]) or redis.call('HGET', K.meta, 'epoch') or ''
local scope = room == '' and K.index or members_key(room)

local version
if room == '' then
  version = read_counter('version')
else
  version = redis.call('HGET', K.room_versions, room)
  if follows and not version then
    version = read_counter('clock')
    redis.call('HSET', K.room_versions, room, version)
  end
  if follows and redis.call('EXISTS', scope) == 0 then
    redis.call('ZADD', K.idle_rooms, read_clock(ARGV[6]) + tonumber(ARGV[4]), room)
  end
  version = version or read_counter('clock')
end

local ids, more = {}, 0
local large = tonumber(ARGV[8]) > 0 and redis.call('SISMEMBER', K.large, room) or 0
if follows and large == 1 then
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
  records = redis.call('HMGET', K.users, unpack(ids))
  seen = redis.call('ZMSCORE', K.seen, unpack(ids))
end
-- The records are packed already: an array of them is its head (MessagePack array 32) and they, one after the other.
local packed_records = string.char(0xdd) .. struct.pack('>I4', #records) .. table.concat(records)
return {epoch, tonumber(version), cmsgpack.pack(ids), packed_records, table.concat(seen, ' '), more,
        redis.call('ZCARD', scope), large}
