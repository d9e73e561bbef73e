-- Releases a lock, if it still belongs to the owner.
-- KEYS: lock. ARGV: owner.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
