-- Gives a lease its full length again, if the lock still belongs to the owner.
-- KEYS: lock. ARGV: owner, lease in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
