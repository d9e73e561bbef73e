-- Deletes the membership of an Actionhero node's connection, unless a later one has replaced it.
-- KEYS: members. ARGV: id, the member's JSON.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
