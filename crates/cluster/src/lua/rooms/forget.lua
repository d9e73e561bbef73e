-- Forgets a closed room after its members were removed.
-- KEYS: closed. ARGV: room, incarnation.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
