-- Reads a value and what is left of its life; with ARGV[2] it gets that lifetime, in ms.
-- KEYS: value, lock. ARGV: who holds the lock, new lifetime or ''.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
    return redis.error_reply('LOCKED somebody else holds the lock')
end
local value = redis.call('GET', KEYS[1])
if value and ARGV[2] ~= '' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { value, redis.call('PTTL', KEYS[1]) }
