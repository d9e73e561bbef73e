-- Makes a connection a member of a room, unless its generation was reaped. A member that another live generation has
-- listed is kept; a member of its own, of an earlier name of its own, or of a dead generation is replaced. A reaper finds
-- members through the memberships of their generation, so the membership is written first.
-- KEYS: leases, rooms, members, memberships, incarnations, floor, names, time of a loss. ARGV: generation, room, id,
-- member, joinedAt, number.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return { 'reaped', false }
end
if tonumber(ARGV[6]) <= (tonumber(redis.call('GET', KEYS[6]) or 0) or 0) then -- it was undone
    return { 'late', false }
end
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then
    return { redis.call('EXISTS', KEYS[8]) == 1 and 'recovering' or 'no room', false }
end
local life = redis.call('HGET', KEYS[5], ARGV[2])
if not life then -- an Actionhero node created the room
    local now = redis.call('TIME')
    life = string.format('%.0f', now[1] * 1000000 + now[2])
    redis.call('HSET', KEYS[5], ARGV[2], life)
end
local member = redis.call('HGET', KEYS[3], ARGV[3])
if member then
    local of = string.match(member, '"generation":"(%w+)"')
    local is_own = of == ARGV[1] or of and redis.call('HGET', KEYS[7], of) == ARGV[1]
    if not of or not is_own and redis.call('ZSCORE', KEYS[1], of) then
        return { 'already', life }
    end
end
redis.call('HSET', KEYS[4], ARGV[2] .. ' ' .. ARGV[3], ARGV[5])
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
return { member and 'anew' or 'new', life }
