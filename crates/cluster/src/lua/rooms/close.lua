-- Closes a room and returns its incarnation, which is stored until the room is forgotten, so that closing can be
-- repeated. It is also recorded for ten minutes as evidence for nodes that miss the room's last message.
-- KEYS: rooms, incarnations, closed, last incarnations of closed rooms, times at which they were closed, unused key. ARGV:
-- room, µs for which a close is recorded, most records removed.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
    return redis.call('HGET', KEYS[3], ARGV[1])
end
local life = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
redis.call('HSET', KEYS[4], ARGV[1], life)
redis.call('ZADD', KEYS[5], string.format('%.0f', us), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], life)
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[1], ARGV[1])
local past = string.format('%.0f', us - ARGV[2])
for _, room in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', past, 'LIMIT', 0, ARGV[3])) do
    redis.call('ZREM', KEYS[5], room)
    redis.call('HDEL', KEYS[4], room)
end
return life
