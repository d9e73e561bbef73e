-- Reads a value and its ttl; sets the ttl first if ARGV[2] is not empty.
-- KEYS: value, lock. ARGV: owner of the lock or '', new ttl in ms or ''.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
    return redis.error_reply('LOCKED somebody else holds the lock')
end
local value = redis.call('GET', KEYS[1])
if value and ARGV[2] ~= '' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { value, redis.call('PTTL', KEYS[1]) }
