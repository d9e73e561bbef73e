-- Takes the claim on a dead generation for the length of a lease. If the generation still has a lease, and the lease is
-- overdue, this is the reap: the lease is removed, and from then on every script that checks for it refuses the
-- generation.
-- KEYS: leases, names, nodes, epoch, claims, reapers, names of the dead generation, its memberships, its leaves,
-- links, the floor of its joins, beats, its attempts of tasks, generations that were registered, unused key. ARGV: the
-- reaper, the dead generation, lease in µs, µs after which an expired lease is overdue, time at which it was seen expired
-- in µs, µs for which that observation is valid.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
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
-- The claim is written first: if the script fails half-way, the next reaper must still find the generation.
redis.call('HSET', KEYS[6], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[5], string.format('%.0f', us + ARGV[3]), ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[11])
redis.pcall('HDEL', KEYS[12], ARGV[2])
-- From here on corrupt keys are skipped.
redis.pcall('HDEL', KEYS[3], ARGV[2])
redis.pcall('ZADD', KEYS[14], 'XX', string.format('%.0f', us), ARGV[2]) -- remembered from now on
redis.call('SET', KEYS[4], string.format('%.0f', us))
local held = string.sub(KEYS[8], 1, -1 - #ARGV[2])
local running = string.sub(KEYS[13], 1, -1 - #ARGV[2])
for _, name in ipairs(redis.pcall('SMEMBERS', KEYS[7])) do
    redis.pcall('HDEL', KEYS[2], name)
    redis.pcall('HDEL', KEYS[10], name)
    -- A node that died before it had moved what an earlier name had: that one is to be claimed too.
    if name ~= ARGV[2] and redis.call('EXISTS', held .. name, running .. name) > 0 then
        redis.call('ZADD', KEYS[5], 'NX', string.format('%.0f', us), name)
    end
end
redis.call('DEL', KEYS[7])
for key, kind in pairs({ [KEYS[8]] = 'hash', [KEYS[9]] = 'list' }) do
    if redis.call('TYPE', key).ok ~= kind then
        redis.call('DEL', key)
    end
end
return 1
