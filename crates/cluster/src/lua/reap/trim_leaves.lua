-- Removes the first leaves of the list, which were announced.
-- KEYS: reapers, leaves. ARGV: the reaper, the dead generation, number of leaves.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then
    return 0
end
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
return 1
