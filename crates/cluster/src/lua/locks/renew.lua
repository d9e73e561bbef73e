-- Gives a lease its full length again, if the lock still belongs to the owner; its token is stored as long, and longer.
-- KEYS: lock, fence. ARGV: owner, lease in ms, ttl of the token in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
