-- Takes it on to clean up after a generation, for the length of a lease. Where its lease ran out, this is the reap: from
-- here on it is dead, and every script that asks for its lease refuses it.
-- KEYS: leases, names, nodes, epoch, reaped, reapers, the names it bears, held, leaves. ARGV: the reaper, the dead, lease
-- in µs, from when on a lease is overdue, in µs, when it was seen to be, for how long that counts, in µs.
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local mine = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not mine or tonumber(mine) <= us or us - ARGV[5] > tonumber(ARGV[6]) then
    return 0
end
local lease = redis.call('ZSCORE', KEYS[1], ARGV[2])
if lease and tonumber(lease) > us - ARGV[4] then
    return 0
end
if not lease then
    local claimed = redis.call('ZSCORE', KEYS[5], ARGV[2])
    if not claimed or tonumber(claimed) > us then
        return 0
    end
end
-- The next reaper must find it, whatever stops this script.
redis.call('HSET', KEYS[6], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[5], string.format('%.0f', us + ARGV[3]), ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[2])
-- From here on keys that somebody spoilt are passed over.
redis.pcall('HDEL', KEYS[3], ARGV[2])
redis.call('SET', KEYS[4], string.format('%.0f', us))
for _, name in ipairs(redis.pcall('SMEMBERS', KEYS[7])) do
    redis.pcall('HDEL', KEYS[2], name)
end
redis.call('DEL', KEYS[7])
for key, kind in pairs({ [KEYS[8]] = 'hash', [KEYS[9]] = 'list' }) do
    if redis.call('TYPE', key).ok ~= kind then
        redis.call('DEL', key)
    end
end
return 1
