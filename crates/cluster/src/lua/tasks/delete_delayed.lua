-- Removes a delayed job and its claim, and counts its end in its batch. Returns 1 if it did; 0 if it is not delayed; 2 if it is and
-- was not when the caller read its names, which is to be repeated; 3 if its batch has ended with that; or the key that is spoilt. Marks are kept for a day, the newest
-- 100,000.
-- KEYS: unused key, delayed, delayed jobs, marks of deletion, claim or unused key, queues; the starts of keys: ready, again,
-- suspects, batches, members of batches that ended, reports; deadlines of batches; the start of keys: jobs that take turns. ARGV:
-- id, '1' to mark it if it is not delayed, '1' if its names were read, its name as a member of a batch or '', channel.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[4])
local is_delayed = redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1
if is_delayed and ARGV[3] ~= '1' then
    return 2
end
if is_delayed then
    local put = placer(KEYS[6], KEYS[7], KEYS[8], KEYS[9], ARGV[5], KEYS[14])
    local counters = batch_counters(put, KEYS[10], KEYS[11], KEYS[7], KEYS[13])
    local batch, key = counters.find(ARGV[4])
    if key then
        return key
    end
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
    release(KEYS[5], ARGV[1])
    if batch then
        counters.count(batch, 'deleted')
    end
    note_end(KEYS[12], ARGV[5], ARGV[1], 'dropped')
    return counters.count_over() > 0 and 3 or 1
elseif ARGV[2] == '1' then
    local now = redis.call('TIME')
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now[1] - 86400)
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -100001)
    redis.call('ZADD', KEYS[4], now[1], ARGV[1])
    redis.call('EXPIRE', KEYS[4], 86400)
end
return 0
