-- Gives a lease its full length again, even if it has expired, and returns what has expired: leases that are overdue,
-- and claims of reapers. Leases and claims that end later than a full one are shortened to it. Redis's clock may have
-- been set back, and without this no node would reap the dead until the clock had caught up. Also returns the number of
-- the connection over which the generation publishes, as it is stored; stores the number of this renewal and returns the
-- one before; returns the number of memberships, and when data was found lost, for as long as rooms are restored.
-- KEYS: leases, claims, epoch, links, beats, memberships, time of a loss, unused key. ARGV: generation, lease in µs, most
-- entries returned of each, µs after which an expired lease is overdue, number of the renewal, number of the last confirmed
-- one, ms in which rooms are restored after a loss.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return nil
end
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local ends = string.format('%.0f', us + ARGV[2])
redis.call('ZADD', KEYS[1], ends, ARGV[1])
local lapsed = {}
for n, past in ipairs({ us - ARGV[4], us }) do
    -- A corrupt key must not cost this node its lease.
    for _, name in ipairs(redis.pcall('ZRANGEBYSCORE', KEYS[n], '(' .. ends, '+inf', 'LIMIT', 0, ARGV[3])) do
        redis.call('ZADD', KEYS[n], ends, name)
    end
    for _, name in ipairs(redis.pcall('ZRANGEBYSCORE', KEYS[n], '-inf', string.format('%.0f', past), 'LIMIT', 0, ARGV[3])) do
        lapsed[#lapsed + 1] = name
    end
end
local epoch = redis.pcall('GET', KEYS[3])
local link = redis.pcall('HGET', KEYS[4], ARGV[1])
local beat = redis.pcall('HGET', KEYS[5], ARGV[1])
if type(beat) ~= 'string' or (tonumber(beat) or 0) < tonumber(ARGV[5]) then -- not an earlier one that arrives late
    redis.pcall('HSET', KEYS[5], ARGV[1], ARGV[5])
end
if (type(beat) == 'string' and tonumber(beat) or 0) < tonumber(ARGV[6]) then -- older data
    redis.call('SET', KEYS[7], string.format('%.0f', us), 'PX', ARGV[7])
end
local stored = redis.pcall('HLEN', KEYS[6])
local lost = redis.pcall('GET', KEYS[7])
return {
    string.format('%.0f', us),
    type(epoch) == 'string' and epoch or '',
    lapsed,
    type(link) == 'string' and link or '',
    string.format('%.0f', type(beat) == 'string' and tonumber(beat) or 0),
    type(stored) == 'number' and stored or 0,
    type(lost) == 'string' and lost or '',
}
