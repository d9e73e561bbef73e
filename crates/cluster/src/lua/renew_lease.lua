-- Gives a lease its full length again, even if it ran out, and tells what lapsed: leases, and claims of reapers.
-- KEYS: leases, epoch, reaped. ARGV: generation, lease in µs, most that are told.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return nil
end
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', us + ARGV[2]), ARGV[1])
local text = string.format('%.0f', us)
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text, 'LIMIT', 0, ARGV[3])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', text, 'LIMIT', 0, ARGV[3])) do
    lapsed[#lapsed + 1] = dead
end
return { text, tonumber(redis.call('GET', KEYS[2]) or 0), lapsed }
