-- Removes a delayed job and its claim; returns what was stored, or false. Marks are kept for a day, the newest 100,000.
-- KEYS: unused key, delayed, delayed jobs, marks of deletion, claim or unused key. ARGV: id, '1' to mark it if it is not delayed.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[4])
local entry = redis.call('HGET', KEYS[3], ARGV[1])
if entry then
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
    release(KEYS[5], ARGV[1])
elseif ARGV[2] == '1' then
    local now = redis.call('TIME')
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now[1] - 86400)
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -100001)
    redis.call('ZADD', KEYS[4], now[1], ARGV[1])
    redis.call('EXPIRE', KEYS[4], 86400)
end
return entry
