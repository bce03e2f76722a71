-- Take the free lease under a new term, or renew the one the asker has.
--
-- KEYS[1]  lease: `TERM|HOLDER`, expires
-- KEYS[2]  term: the last term given
-- ARGV[1]  holder
-- ARGV[2]  lifetime in ms
--
-- Returns {term or 0, ms left, seconds, microseconds}: Redis's clock is the one all replicas go by. Terms rise and
-- are milliseconds since 1970, so that they still rise after Redis lost its data.

local clock = redis.call('TIME')
local lease = redis.call('GET', KEYS[1])
if lease then
  local term, holder = string.match(lease, '^(%d+)|(.*)$')
  if holder ~= ARGV[1] then
    return {'0', redis.call('PTTL', KEYS[1]), clock[1], clock[2]}
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {term, tonumber(ARGV[2]), clock[1], clock[2]}
end

local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local term = string.format('%.0f', math.max(now_ms, last + 1))
redis.call('SET', KEYS[2], term)
redis.call('SET', KEYS[1], term .. '|' .. ARGV[1], 'PX', ARGV[2])
return {term, tonumber(ARGV[2]), clock[1], clock[2]}
