-- Ends a reap: removes the claim, if no membership, no leave and no attempt of the dead generation is left.
-- KEYS: claims, reapers, memberships, leaves, links, attempts of tasks. ARGV: the reaper, the dead generation.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
    return 0
end
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 or redis.call('TYPE', KEYS[6]).ok == 'hash' then
    return 0
end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.pcall('HDEL', KEYS[5], ARGV[2]) -- a node that was frozen may have announced it once more after the claim
return 1
