-- Acquire a free lease under a new term, or renew the lease of the caller.
--
-- KEYS[1]  lease: `TERM|HOLDER`, expires
-- KEYS[2]  term: the last term given
-- ARGV[1]  holder
-- ARGV[2]  lifetime in ms
-- ARGV[3]  the highest term that the caller knows
--
-- Returns {term or 0, ms left, seconds, microseconds, last term given}: Redis's clock is the clock of all replicas.
-- Terms rise, also after Redis lost its data: they are milliseconds since 1970. A failover may lose the last term given
-- *and* lead to a slower clock, so a term is also above every term that the caller has seen.

local clock = redis.call('TIME')
local seen = tonumber(ARGV[3])
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local lease = redis.call('GET', KEYS[1])
if lease then
  local term, holder = string.match(lease, '^(%d+)|(.*)$')
  if holder ~= ARGV[1] then
    return {'0', redis.call('PTTL', KEYS[1]), clock[1], clock[2], term}
  end
  if tonumber(term) >= seen then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {term, tonumber(ARGV[2]), clock[1], clock[2], term}
  end
  -- The caller's own lease, from before terms that were lost: it gets a new term.
end

local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local term = string.format('%.0f', math.max(now_ms, last + 1, seen + 1))
redis.call('SET', KEYS[2], term)
redis.call('SET', KEYS[1], term .. '|' .. ARGV[1], 'PX', ARGV[2])
return {term, tonumber(ARGV[2]), clock[1], clock[2], term}
