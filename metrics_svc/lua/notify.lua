-- Store the changes of an attempt to notify: delivered messages, pending ones, status of receivers.
--
-- KEYS[1]  lease       KEYS[2]  told: hash key -> JSON       KEYS[3]  intents: hash key -> JSON
-- KEYS[4]  receivers: hash name -> JSON                      KEYS[5]  notices: hash alert id -> JSON
-- ARGV[1]  `TERM|HOLDER`
-- ARGV[2]  MessagePack of {told: [{key, JSON or ''}], intents: [{key, JSON or ''}], receivers: [{name, JSON or ''}],
--          done: [{alert id, JSON}]}: a notice that has changed meanwhile is kept
--
-- Returns 1, or 0 if another replica has the lease.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end

local change = cmsgpack.unpack(ARGV[2])

for which = 1, 3 do
  for _, pair in ipairs(change[which]) do
    if pair[2] == '' then
      redis.call('HDEL', KEYS[1 + which], pair[1])
    else
      redis.call('HSET', KEYS[1 + which], pair[1], pair[2])
    end
  end
end

for _, pair in ipairs(change[4]) do
  if redis.call('HGET', KEYS[5], pair[1]) == pair[2] then redis.call('HDEL', KEYS[5], pair[1]) end
end
return 1
