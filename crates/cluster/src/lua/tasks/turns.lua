-- Returns the lists of the jobs of a queue that take turns, and their lengths; a spoilt one has none.
-- KEYS: the keys of the queue by their turns.
local lists, lengths = {}, {}
for n, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    lists[n] = KEYS[1] .. ' ' .. key
    local length = redis.pcall('LLEN', lists[n])
    lengths[n] = type(length) == 'number' and length or 0
end
return { lists, lengths }
