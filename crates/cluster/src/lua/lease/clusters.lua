-- Marks a cluster as one that uses the shared prefix, and returns the others that do. Marks that are too old are removed.
-- KEYS: clusters. ARGV: cluster, seconds after which a mark is too old, most clusters returned.
local now = tonumber(redis.call('TIME')[1])
local others = {}
local all = redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
    local at = tonumber(all[n + 1])
    if not at or at < now - ARGV[2] then
        redis.call('HDEL', KEYS[1], all[n])
    elseif all[n] ~= ARGV[1] and #others < tonumber(ARGV[3]) then
        others[#others + 1] = all[n]
    end
end
redis.call('HSET', KEYS[1], ARGV[1], now)
return others
