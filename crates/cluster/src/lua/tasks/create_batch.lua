-- Stores a batch, open, unless there is one of its id. Returns 1 if it was stored.
-- KEYS: batch, delayed. ARGV: µs until which it may run, name of its deadline, the deadline in ms, ms for which it is kept at most,
-- then, if it has a completion: its id, its queue, its text.
local now = redis.call('TIME')
if now[1] * 1000000 + now[2] > tonumber(ARGV[1]) then
    return redis.error_reply('LATE the deadline of this enqueue has passed')
end
redis.call('ZCARD', KEYS[2]) -- of another type, it ends the script before anything has changed
if redis.call('HEXISTS', KEYS[1], 'total') == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'total', 0, 'done', 0, 'failed', 0, 'deleted', 0)
if ARGV[5] then
    redis.call('HSET', KEYS[1], 'id', ARGV[5], 'queue', ARGV[6], 'text', ARGV[7])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return 1
