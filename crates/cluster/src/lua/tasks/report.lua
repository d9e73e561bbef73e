-- Keeps the progress of a job whose attempt is listed; returns whether it is. A full Redis refuses it.
-- KEYS: running, report. ARGV: generation, field, progress, ms for which it is kept.
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then
    return 0
end
redis.call('HSET', KEYS[2], 'attempt', ARGV[1] .. ' ' .. ARGV[2], 'progress', ARGV[3])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then -- a tracked job may be known for longer
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return 1
