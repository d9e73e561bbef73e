-- Takes it on to clean up after a generation, for the length of a lease. Where its lease ran out, this is the reap: from
-- here on it is dead, and every script that asks for its lease refuses it.
-- KEYS: leases, names, nodes, epoch, reaped, reapers, the names it bears. ARGV: the reaper, the dead, lease in µs.
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local mine = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not mine or tonumber(mine) <= us then
    return 0
end
local ends = redis.call('ZSCORE', KEYS[1], ARGV[2])
if ends then
    if tonumber(ends) > us then
        return 0
    end
    redis.call('ZREM', KEYS[1], ARGV[2])
    redis.call('HDEL', KEYS[3], ARGV[2])
    redis.call('INCR', KEYS[4])
    for _, name in ipairs(redis.call('SMEMBERS', KEYS[7])) do
        redis.call('HDEL', KEYS[2], name)
    end
    redis.call('DEL', KEYS[7])
else
    local claimed = redis.call('ZSCORE', KEYS[5], ARGV[2])
    if not claimed or tonumber(claimed) > us then
        return 0
    end
end
redis.call('ZADD', KEYS[5], string.format('%.0f', us + ARGV[3]), ARGV[2])
redis.call('HSET', KEYS[6], ARGV[2], ARGV[1])
return 1
