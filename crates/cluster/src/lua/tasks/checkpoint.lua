-- Keeps the checkpoint of a job whose attempt is listed; returns whether it is. A full Redis refuses it.
-- KEYS: running, checkpoint. ARGV: field, checkpoint, ms for which it is kept.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
