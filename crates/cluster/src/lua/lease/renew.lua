-- Gives a lease its full length again, even if it ran out, and tells what lapsed: leases that are overdue, and claims of
-- reapers. None ends later than a full one would, which it might where Redis's clock was set back: nobody would clean up
-- after the dead for as long.
-- KEYS: leases, reaped, epoch. ARGV: generation, lease in µs, most that are told, from when on a lease is overdue, in µs.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return nil
end
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local ends = string.format('%.0f', us + ARGV[2])
redis.call('ZADD', KEYS[1], ends, ARGV[1])
local lapsed = {}
for n, past in ipairs({ us - ARGV[4], us }) do
    -- A key that somebody spoilt must not end this node's lease.
    for _, name in ipairs(redis.pcall('ZRANGEBYSCORE', KEYS[n], '(' .. ends, '+inf', 'LIMIT', 0, ARGV[3])) do
        redis.call('ZADD', KEYS[n], ends, name)
    end
    for _, name in ipairs(redis.pcall('ZRANGEBYSCORE', KEYS[n], '-inf', string.format('%.0f', past), 'LIMIT', 0, ARGV[3])) do
        lapsed[#lapsed + 1] = name
    end
end
local epoch = redis.pcall('GET', KEYS[3])
return { string.format('%.0f', us), type(epoch) == 'string' and epoch or '', lapsed }
