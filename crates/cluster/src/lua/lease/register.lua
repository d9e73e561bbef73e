-- Registers a node and starts its lease. If the node is registered already, only the lease is set to its full length. A
-- generation that is being reaped is refused.
-- KEYS: leases, names, nodes, epoch, epoch of the store, names of the generation, claims, unused key. ARGV: generation, record,
-- lease in µs, epoch for a store that has none, then all names of the generation.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if redis.call('ZSCORE', KEYS[7], ARGV[1]) then
    return nil
end
local life = redis.call('GET', KEYS[5])
if not life then
    life = ARGV[4]
    redis.call('SET', KEYS[5], life)
end
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', us + ARGV[3]), ARGV[1])
if redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) == 1 then
    redis.call('SET', KEYS[4], string.format('%.0f', us))
end
redis.call('DEL', KEYS[6])
for n = 5, #ARGV do
    redis.call('HSET', KEYS[2], ARGV[n], ARGV[1])
    redis.call('SADD', KEYS[6], ARGV[n])
end
return { life, string.format('%.0f', us) }
