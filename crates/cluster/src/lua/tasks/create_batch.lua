-- Stores a batch, open, unless there is one of its id. Returns 1 if it was stored.
-- KEYS: batch, deadlines of batches; if its completion is tracked: the report of that. ARGV: µs until which it may run, id, its deadline
-- in ms, ms for which it is kept at most, channel, then, if it has a completion: its id, its queue, its text.
local now = redis.call('TIME')
if now[1] * 1000000 + now[2] > tonumber(ARGV[1]) then
    return redis.error_reply('LATE the deadline of this enqueue has passed')
end
redis.call('ZCARD', KEYS[2]) -- of another type, it ends the script before anything has changed
if redis.call('HEXISTS', KEYS[1], 'total') == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'total', 0, 'done', 0, 'failed', 0, 'deleted', 0)
if ARGV[6] then
    redis.call('HSET', KEYS[1], 'id', ARGV[6], 'queue', ARGV[7], 'text', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('EXPIRE', KEYS[2], 8640000) -- longer than any deadline
if KEYS[3] then
    track(KEYS[3], ARGV[4]) -- from now on, so that it can be waited for before it is enqueued
end
-- Those who wait for what was due first wait no longer for it.
if redis.call('ZRANGE', KEYS[2], 0, 0)[1] == ARGV[2] then
    redis.pcall('PUBLISH', ARGV[5], '')
end
return 1
