-- Takes a free lock and answers its fencing token: it rises even if the last one was forgotten, or the clock went back.
-- KEYS: lock, fence. ARGV: owner, lease in ms, how long the token is remembered, in ms.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return nil
end
local now = redis.call('TIME')
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, now[1] * 1000000 + now[2])
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text, 'PX', ARGV[3])
return text
