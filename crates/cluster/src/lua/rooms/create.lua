-- Creates a room, unless the limit is reached. Members that a destroyed room of the same name left behind are removed.
-- KEYS: rooms, members, incarnations, closed. ARGV: room, most rooms.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
    return 'existing'
end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 'full'
end
local now = redis.call('TIME')
-- First the write that a full Redis refuses.
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f', now[1] * 1000000 + now[2]))
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('SADD', KEYS[1], ARGV[1])
return 'new'
