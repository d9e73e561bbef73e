-- Goes on holding the claim to clean up after a generation.
-- KEYS: reaped, reapers. ARGV: the reaper, the dead, lease in µs.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
    return 0
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now[1] * 1000000 + now[2] + ARGV[3]), ARGV[2])
return 1
