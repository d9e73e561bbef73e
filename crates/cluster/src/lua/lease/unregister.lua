-- Removes a node and ends its lease. If the generation still has memberships or attempts of tasks, the lease is set to
-- expired instead, so that another node reaps them; those of an earlier name are left to a claim.
-- KEYS: leases, names, nodes, epoch, names of the generation, memberships, links, the floor of its joins, claims, beats,
-- attempts of tasks, unused key. ARGV: generation.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
local now = redis.call('TIME')
local text = string.format('%.0f', now[1] * 1000000 + now[2])
if redis.call('EXISTS', KEYS[6]) == 1 or redis.call('TYPE', KEYS[11]).ok == 'hash' then
    redis.call('ZADD', KEYS[1], 'XX', text, ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('DEL', KEYS[8])
end
if redis.call('HDEL', KEYS[3], ARGV[1]) == 1 then
    redis.call('SET', KEYS[4], text)
end
local held = string.sub(KEYS[6], 1, -1 - #ARGV[1])
local running = string.sub(KEYS[11], 1, -1 - #ARGV[1])
for _, name in ipairs(redis.call('SMEMBERS', KEYS[5])) do
    redis.call('HDEL', KEYS[2], name)
    redis.pcall('HDEL', KEYS[7], name) -- its messages that come later are refused
    if name ~= ARGV[1] and redis.call('EXISTS', held .. name, running .. name) > 0 then
        redis.call('ZADD', KEYS[9], 'NX', text, name)
    end
end
redis.call('DEL', KEYS[5])
redis.pcall('HDEL', KEYS[7], ARGV[1]) -- a guest has this and nothing else
redis.call('HDEL', KEYS[10], ARGV[1])
