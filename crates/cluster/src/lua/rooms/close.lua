-- Closes a room and returns its incarnation, which is stored until the room is forgotten, so that closing can be
-- repeated.
-- KEYS: rooms, incarnations, closed, unused key. ARGV: room.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
    return redis.call('HGET', KEYS[3], ARGV[1])
end
local life = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
redis.call('HSET', KEYS[3], ARGV[1], life)
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[1], ARGV[1])
return life
