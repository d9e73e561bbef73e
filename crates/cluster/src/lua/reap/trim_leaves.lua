-- Trims leaves that were told.
-- KEYS: reapers, leaves. ARGV: the reaper, the dead, how many.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then
    return 0
end
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
return 1
