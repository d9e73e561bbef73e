-- Makes a room, unless there are as many as may be. What a destroyed room of its name left behind goes.
-- KEYS: rooms, members. ARGV: room, most rooms.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
    return 'existing'
end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 'full'
end
redis.call('DEL', KEYS[2])
redis.call('SADD', KEYS[1], ARGV[1])
return 'new'
