-- Acquires a free lock and returns its fencing token, which rises even if the last one has expired or the clock was set
-- back. A node that was reaped acquires none.
-- KEYS: lock, fence, leases. ARGV: owner, lease in ms, ttl of the token in ms, generation or ''.
if ARGV[4] ~= '' and not redis.call('ZSCORE', KEYS[3], ARGV[4]) then
    return redis.error_reply('REAPED this node was found dead and is being listed anew')
end
local last = tonumber(redis.call('GET', KEYS[2]) or 0) -- read before any write: it may not be a token
if not last then
    return redis.error_reply('WRONGTYPE the last token is no number')
end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return nil
end
local now = redis.call('TIME')
local text = string.format('%.0f', math.max(last + 1, now[1] * 1000000 + now[2]))
redis.call('SET', KEYS[2], text, 'PX', ARGV[3])
return text
