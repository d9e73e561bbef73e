-- Registers a node and starts its lease. If the node is registered already, only the lease is set to its full length. A
-- generation that was reaped is refused: one that is being reaped, or that was registered in this data, and has no record
-- any more. Earlier names of the node, which older data may contain, are no nodes any more; a reap of them is over, unless
-- a reaper is at work or has left leaves to announce. Returns the epoch of the store, Redis's time, and whether data was
-- lost: that of a generation that was registered before, or just now that of others.
-- KEYS: leases, names, nodes, epoch, epoch of the store, names of the generation, claims, reapers, leaves of the
-- generation, time of a loss, generations that were registered, unused key. ARGV: generation, record, lease in µs, epoch
-- for a store that has none, 1 if the generation was registered before, ms in which rooms are restored after a loss, µs for
-- which a generation without a lease is remembered, Redis's time in the node's last confirmed registration or renewal, then
-- all names of the generation, its own first.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('ZSCORE', KEYS[7], ARGV[1]) then
    return nil
end
if redis.call('TYPE', KEYS[11]).ok ~= 'zset' then
    redis.call('DEL', KEYS[11])
end
local is_new = not redis.call('ZSCORE', KEYS[11], ARGV[1])
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
if ARGV[5] == '1' then
    if is_new and us - ARGV[8] > tonumber(ARGV[7]) then
        return nil -- it may have been reaped, and forgotten since
    end
    if not is_new and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
        return nil
    end
end
local life = redis.call('GET', KEYS[5])
if not life then
    life = ARGV[4]
    redis.call('SET', KEYS[5], life)
end
local text = string.format('%.0f', us)
redis.call('ZADD', KEYS[1], string.format('%.0f', us + ARGV[3]), ARGV[1])
redis.call('ZADD', KEYS[11], text, ARGV[1])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[11], '-inf', string.format('%.0f', us - ARGV[7]), 'LIMIT', 0, 100)) do
    if redis.call('ZSCORE', KEYS[1], name) then
        redis.call('ZADD', KEYS[11], text, name)
    else
        redis.call('ZREM', KEYS[11], name)
    end
end
if ARGV[5] == '1' and is_new then
    redis.call('SET', KEYS[10], text, 'PX', ARGV[6])
end
local changed = redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
local leaves = string.sub(KEYS[9], 1, -1 - #ARGV[1])
for n = 10, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[n])
    changed = changed + redis.call('HDEL', KEYS[3], ARGV[n])
    local claimed = redis.call('ZSCORE', KEYS[7], ARGV[n])
    if claimed and tonumber(claimed) <= us and redis.call('EXISTS', leaves .. ARGV[n]) == 0 then
        redis.call('ZREM', KEYS[7], ARGV[n])
        redis.call('HDEL', KEYS[8], ARGV[n])
    end
end
if changed > 0 then
    redis.call('SET', KEYS[4], text)
end
redis.call('DEL', KEYS[6])
for n = 9, #ARGV do
    redis.call('HSET', KEYS[2], ARGV[n], ARGV[1])
    redis.call('SADD', KEYS[6], ARGV[n])
end
-- The reply to the registration that found the loss may be lost.
return { life, text, ARGV[5] == '1' and redis.call('EXISTS', KEYS[10]) or 0 }
