-- Deletes a membership, unless a later one of the same connection has replaced it, and returns 'removed'. If there was none,
-- says why: 'reaped' if the generation has no record any more in the store in which it was registered; 'destroyed' if that
-- incarnation of the room was closed; else 'lost'.
-- KEYS: members, memberships, nodes, epoch of the store, last incarnations of closed rooms. ARGV: room, id, the part of the
-- member's JSON with the time of the join, generation, epoch of the store in which it was registered, incarnation.
local member = redis.call('HGET', KEYS[1], ARGV[2])
if not member or string.find(member, ARGV[3], 1, true) then
    redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
    if redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then
        return 'removed'
    end
end
if redis.call('GET', KEYS[4]) == ARGV[5] and redis.call('HEXISTS', KEYS[3], ARGV[4]) == 0 then
    return 'reaped'
end
local closed = redis.call('HGET', KEYS[5], ARGV[1])
return closed and tonumber(closed) >= tonumber(ARGV[6]) and 'destroyed' or 'lost'
