-- Deletes a membership, unless a later one of the same connection has replaced it. If nothing is deleted, returns the
-- incarnation of the room.
-- KEYS: members, memberships, rooms, incarnations. ARGV: room, id, the part of the member's JSON with the time of the
-- join.
local member = redis.call('HGET', KEYS[1], ARGV[2])
if not member or string.find(member, ARGV[3], 1, true) then
    redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
    if redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then
        return { 1, false }
    end
end
return { 0, redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 and redis.call('HGET', KEYS[4], ARGV[1]) }
