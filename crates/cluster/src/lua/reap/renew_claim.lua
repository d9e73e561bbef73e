-- Gives a claim its full length again, if the reaper still has it.
-- KEYS: claims, reapers, unused key. ARGV: the reaper, the dead generation, lease in µs.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
    return 0
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now[1] * 1000000 + now[2] + ARGV[3]), ARGV[2])
return 1
