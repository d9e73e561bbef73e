-- The members of a closed room are removed: nothing is left of it.
-- KEYS: closed. ARGV: room, life.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
