-- Makes a connection a member of a room, unless its generation was reaped. One that is listed under another generation
-- of its node is listed anew.
-- KEYS: leases, rooms, members, held. ARGV: generation, room, id, member, the mark of its memberships, joinedAt.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return 'reaped'
end
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then
    return 'no room'
end
local member = redis.call('HGET', KEYS[3], ARGV[3])
if member and string.find(member, ARGV[5], 1, true) then
    return 'already'
end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
redis.call('HSET', KEYS[4], ARGV[2] .. ' ' .. ARGV[3], ARGV[6])
return member and 'already' or 'new'
