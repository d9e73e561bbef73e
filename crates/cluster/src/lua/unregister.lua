-- A node gives its lease up.
-- KEYS: leases, names, nodes, epoch, the names it bears. ARGV: generation.
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[3], ARGV[1]) == 1 then
    redis.call('INCR', KEYS[4])
end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[5])) do
    redis.call('HDEL', KEYS[2], name)
end
redis.call('DEL', KEYS[5])
