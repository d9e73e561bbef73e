-- Deletes a key of any kind.
-- KEYS: value, lock. ARGV: owner of the lock or ''.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
    return redis.error_reply('LOCKED somebody else holds the lock')
end
return redis.call('DEL', KEYS[1])
