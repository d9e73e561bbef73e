-- Removes members of a room that is no more.
-- KEYS: rooms, members, then what the generation of each holds. ARGV: room, then their ids.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
    return 0 -- somebody made it again, which removed them all
end
for n = 3, #KEYS do
    redis.call('HDEL', KEYS[n], ARGV[1] .. ' ' .. ARGV[n - 1])
    redis.call('HDEL', KEYS[2], ARGV[n - 1])
end
return 1
