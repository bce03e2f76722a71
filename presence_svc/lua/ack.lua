-- Forget commits whose changes have reached the bus.
--
-- KEYS[1]  base (see state.lua)
-- ARGV     the commit ids

for _, id in ipairs(ARGV) do forget_commit(id) end
return #ARGV
