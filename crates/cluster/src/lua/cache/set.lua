-- Replaces value and ttl.
-- KEYS: value, lock. ARGV: owner of the lock or '', value, ttl in ms or ''.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
    return redis.error_reply('LOCKED somebody else holds the lock')
end
if ARGV[3] == '' then
    return redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
