-- Ends the membership of a foreign node's connection; a later one of the same connection stays.
-- KEYS: members. ARGV: id, the membership as it was written.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
