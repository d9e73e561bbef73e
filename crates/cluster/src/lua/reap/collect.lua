-- Empties some of what a dead generation held into the list of leaves to tell. A member that was listed anew since, under
-- a living generation, stays.
-- KEYS: reapers, held, leaves, then the members of a room for each. ARGV: the reaper, the dead, the mark of its
-- memberships, then for each: what held says of it, id, joinedAt.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then
    return 0
end
for n = 4, #KEYS do
    local at = 4 + (n - 4) * 3
    local member = redis.pcall('HGET', KEYS[n], ARGV[at + 1]) -- a room that somebody spoilt has no members
    if type(member) == 'string' and string.find(member, ARGV[3], 1, true) then
        redis.call('HDEL', KEYS[n], ARGV[at + 1])
        redis.call('RPUSH', KEYS[3], ARGV[at] .. ' ' .. ARGV[at + 2])
    end
    redis.call('HDEL', KEYS[2], ARGV[at])
end
return 1
