-- Store one second: rows, alert instances, log entries, events to publish. All or nothing.
--
-- KEYS[1]  lease                         KEYS[2]  meta: hash of `second`, `term`
-- KEYS[3]  watches: hash id -> JSON      KEYS[4]  acks: hash id -> JSON
-- KEYS[5]  episodes: hash key -> JSON    KEYS[6]  episode order: sorted set of keys by startedAt
-- KEYS[7]  outbox: events by second      KEYS[8]  series: sorted set of names by last second
-- KEYS[9]  notices: hash id -> JSON      KEYS[10] transitions: list of JSON
-- KEYS[11…] one list of rows per row
-- ARGV[1]  `TERM|HOLDER`   ARGV[2]  term   ARGV[3]  second   ARGV[4]  most episodes   ARGV[5]  most events
-- ARGV[6]  most transitions
-- ARGV[7]  MessagePack of {rows: [{series, ttl in s}], instances: [{id, JSON or ''}],
--          entries: [{key, startedAt, JSON, id}], events: [JSON], ended: [id], transitions: [JSON],
--          current: [{id, JSON}]}
-- ARGV[8…] the packed rows (bytes, which cmsgpack cannot carry)
--
-- Returns `done`, `again`, `stale` or `fenced` (see store.CommitStatus).
--
-- Redis does not roll back, so everything that can fail is checked before the first write: the arguments, and the types
-- of the keys. No command has more arguments than `PIECE`, because Lua's stack is bounded.

local PIECE = 500
local HOLDS = {'string', 'hash', 'hash', 'hash', 'hash', 'zset', 'zset', 'zset', 'hash', 'list'}

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'fenced' end

local last = redis.call('HMGET', KEYS[2], 'second', 'term')
local second, most_episodes, most_events, most_transitions =
  tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if last[1] and tonumber(last[1]) >= second then
  if tonumber(last[1]) == second and last[2] == ARGV[2] then return 'again' end
  return 'stale'
end

local tick = cmsgpack.unpack(ARGV[7])
if #KEYS ~= 10 + #tick[1] or #ARGV ~= 7 + #tick[1] then error('as many keys and values as rows are needed') end
for i, key in ipairs(KEYS) do
  local holds = redis.call('TYPE', key).ok
  if holds ~= 'none' and holds ~= (HOLDS[i] or 'list') then error(key .. ' is a ' .. holds) end
end

for _, instance in ipairs(tick[2]) do
  if instance[2] == '' then
    redis.call('HDEL', KEYS[3], instance[1])
  else
    redis.call('HSET', KEYS[3], instance[1], instance[2])
  end
end

for _, entry in ipairs(tick[3]) do
  redis.call('HSET', KEYS[5], entry[1], entry[3])
  redis.call('ZADD', KEYS[6], entry[2], entry[1])
  redis.call('HSET', KEYS[9], entry[4], entry[3])
end
local surplus = redis.call('ZCARD', KEYS[6]) - most_episodes
while surplus > 0 do
  local oldest = redis.call('ZRANGE', KEYS[6], 0, math.min(surplus, PIECE) - 1)
  redis.call('HDEL', KEYS[5], unpack(oldest))
  redis.call('ZREMRANGEBYRANK', KEYS[6], 0, #oldest - 1)
  surplus = surplus - #oldest
end
for _, alert in ipairs(tick[7]) do
  if redis.call('HEXISTS', KEYS[9], alert[1]) == 1 then redis.call('HSET', KEYS[9], alert[1], alert[2]) end
end

for _, event in ipairs(tick[4]) do redis.call('ZADD', KEYS[7], second, event) end
if #tick[4] > 0 then redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -most_events - 1) end
for _, id in ipairs(tick[5]) do redis.call('HDEL', KEYS[4], id) end

for i, row in ipairs(tick[1]) do
  local key = KEYS[10 + i]
  redis.call('RPUSH', key, ARGV[7 + i])
  redis.call('EXPIRE', key, row[2])
  redis.call('ZADD', KEYS[8], second, row[1])
end
for _, transition in ipairs(tick[6]) do redis.call('RPUSH', KEYS[10], transition) end
if #tick[6] > 0 then redis.call('LTRIM', KEYS[10], -most_transitions, -1) end

redis.call('HSET', KEYS[2], 'second', ARGV[3], 'term', ARGV[2])
return 'done'
