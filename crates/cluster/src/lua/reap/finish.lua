-- Nothing is left of a dead generation.
-- KEYS: reaped, reapers, held, leaves. ARGV: the reaper, the dead.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
    return 0
end
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
    return 0
end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
