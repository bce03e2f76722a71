-- Return the rooms with members, most users first.
--
-- KEYS[1]  base (see state.lua)
-- ARGV[1]  limit of rooms
--
-- Returns {room, users, connections, room, users, ...}; ties are in descending order of the rooms' names.

local found = redis.call('ZREVRANGE', keys.rooms, 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
local answer = {}
for i = 1, #found, 2 do
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = tonumber(found[i + 1])
  answer[#answer + 1] = tonumber(redis.call('HGET', keys.room_connections, found[i]) or 0)
end
return answer
