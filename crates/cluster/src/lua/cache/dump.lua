-- Reads the content of a key of either kind, and its ttl.
-- KEYS: value.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
    return { kind, -2, {} }
end
if kind == 'list' then
    return { kind, redis.call('PTTL', KEYS[1]), redis.call('LRANGE', KEYS[1], 0, -1) }
end
return { kind, redis.call('PTTL', KEYS[1]), { redis.call('GET', KEYS[1]) } }
