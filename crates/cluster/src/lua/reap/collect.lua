-- Removes some memberships of a dead generation and appends their leaves to the list of leaves to announce. A member
-- that was listed again since then, under a live generation, is kept.
-- KEYS: reapers, memberships, leaves, the members of a room for each, unused key. ARGV: the reaper, the dead
-- generation, the text that marks its members, then for each: the membership, id, joinedAt.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then
    return 0
end
for n = 4, #KEYS - 1 do
    local at = 4 + (n - 4) * 3
    local member = redis.pcall('HGET', KEYS[n], ARGV[at + 1]) -- a corrupt room has no members
    if type(member) == 'string' and string.find(member, ARGV[3], 1, true) then
        redis.call('HDEL', KEYS[n], ARGV[at + 1])
        redis.call('RPUSH', KEYS[3], ARGV[at] .. ' ' .. ARGV[at + 2])
    end
    redis.call('HDEL', KEYS[2], ARGV[at])
end
return 1
