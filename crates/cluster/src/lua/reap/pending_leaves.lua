-- Checks the first leaves to announce: drops those of members that are listed again by now, and returns the rest.
-- KEYS: reapers, leaves, then the members of a room for each. ARGV: the reaper, the dead generation, then for each: the
-- leave, id.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then
    return false
end
local still = {}
for n = 3, #KEYS do
    local at = 3 + (n - 3) * 2
    if redis.pcall('HEXISTS', KEYS[n], ARGV[at + 1]) == 1 then
        redis.call('LREM', KEYS[2], 1, ARGV[at])
    else
        still[#still + 1] = ARGV[at]
    end
end
return still
