-- Deletes a membership, unless a later one of the same connection has replaced it, and returns 'removed'. If there was none,
-- says why: 'reaped' if the generation was registered in this data and has no record any more; 'destroyed' if that
-- incarnation of the room was closed; else 'lost'.
-- KEYS: members, memberships, nodes, generations that were registered, last incarnations of closed rooms. ARGV: room, id,
-- the part of the member's JSON with the time of the join, generation, incarnation.
local member = redis.call('HGET', KEYS[1], ARGV[2])
if not member or string.find(member, ARGV[3], 1, true) then
    redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
    if redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then
        return 'removed'
    end
end
if redis.call('HEXISTS', KEYS[3], ARGV[4]) == 0 and type(redis.pcall('ZSCORE', KEYS[4], ARGV[4])) == 'string' then
    return 'reaped'
end
local closed = redis.call('HGET', KEYS[5], ARGV[1])
return closed and tonumber(closed) >= tonumber(ARGV[5]) and 'destroyed' or 'lost'
