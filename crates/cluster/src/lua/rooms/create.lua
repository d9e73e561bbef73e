-- Makes a room, unless there are as many as may be. What a destroyed room of its name left behind goes.
-- KEYS: rooms, members, lives, closed. ARGV: room, most rooms.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
    return 'existing'
end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 'full'
end
local now = redis.call('TIME')
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f', now[1] * 1000000 + now[2]))
redis.call('SADD', KEYS[1], ARGV[1])
return 'new'
