-- Removes members of a closed room.
-- KEYS: rooms, members, then the memberships of each member's generation. ARGV: room, then the ids.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
    return 0 -- it was created again, which removed all of them
end
for n = 3, #KEYS do
    redis.call('HDEL', KEYS[n], ARGV[1] .. ' ' .. ARGV[n - 1])
    redis.call('HDEL', KEYS[2], ARGV[n - 1])
end
return 1
