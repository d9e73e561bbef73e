-- Lists attempts that a node still runs under its generation, and removes them from its earlier ones. Those of queues with a limit
-- are counted in the same step: another node that fetched before the next count would exceed the limit. Jobs of tracked tasks are
-- tracked from it on, unless it is known that they are.
-- KEYS: unused key, leases, running, names of the generation; the starts of keys: running, attempts of a queue that count for its
-- limit, reports. ARGV: generation, ms for which a count is kept, ms for which a job is tracked, number of queues with a limit, these,
-- then for each attempt: field, job, its id if its task is tracked or ''.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return redis.error_reply('REAPED this node was found dead and is being listed anew')
end
local is_limited, first = {}, 5 + ARGV[4]
for n = 5, first - 1 do
    is_limited[ARGV[n]] = true
end
local function count(generation, field, change)
    local queue = string.match(field, '^%d+ (.+) %d+ %d+ %d+$')
    if is_limited[queue] then
        local held = KEYS[6] .. queue
        local counted = redis.pcall('HGET', held, generation)
        if type(counted) == 'table' then
            return -- a spoilt one holds its queue up
        end
        local now = (tonumber(counted) or 0) + change
        if now > 0 then
            redis.call('HSET', held, generation, string.format('%d', now))
            redis.call('PEXPIRE', held, ARGV[2])
        else
            redis.call('HDEL', held, generation)
        end
    end
end
for n = first, #ARGV, 3 do
    if redis.call('HSETNX', KEYS[3], ARGV[n], ARGV[n + 1]) == 1 then
        count(ARGV[1], ARGV[n], 1)
        local report = KEYS[7] .. ARGV[n + 2]
        local known = ARGV[n + 2] ~= '' and redis.pcall('HMGET', report, 'tracked', 'end')
        if known and not known.err and (not known[1] or known[2]) then
            track(report, ARGV[3])
        end
    end
end
for _, name in ipairs(redis.pcall('SMEMBERS', KEYS[4])) do
    if name ~= ARGV[1] then
        for n = first, #ARGV, 3 do
            if redis.pcall('HDEL', KEYS[5] .. name, ARGV[n]) == 1 then
                count(name, ARGV[n], -1)
            end
        end
    end
end
return 1
