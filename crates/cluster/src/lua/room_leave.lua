-- Ends a membership; a later one of the same connection stays.
-- KEYS: members, held. ARGV: room, id, what its JSON says of the join.
local member = redis.call('HGET', KEYS[1], ARGV[2])
if member and not string.find(member, ARGV[3], 1, true) then
    return 0
end
redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
return redis.call('HDEL', KEYS[1], ARGV[2])
