-- Ends those of these sessions that are there, but for copies of renewed ones.
-- KEYS: unused key. ARGV: …, ids.
redis.call('DEL', KEYS[1])
local ended = {}
for n = 4, #ARGV do
    local key = SESSION .. ARGV[n]
    if redis.call('EXISTS', key) == 1 and not redis.call('HGET', key, 'x') then
        finish(ARGV[n], ended)
    end
end
return ended
