-- Lists attempts that a node still runs under its generation, and removes them from its earlier ones.
-- KEYS: unused key, leases, running, names of the generation; the start of keys: running. ARGV: generation, then for each:
-- field, job.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return redis.error_reply('REAPED this node was found dead and is being listed anew')
end
for n = 2, #ARGV, 2 do
    redis.call('HSETNX', KEYS[3], ARGV[n], ARGV[n + 1])
end
for _, name in ipairs(redis.pcall('SMEMBERS', KEYS[4])) do
    if name ~= ARGV[1] then
        for n = 2, #ARGV, 2 do
            redis.pcall('HDEL', KEYS[5] .. name, ARGV[n])
        end
    end
end
return 1
