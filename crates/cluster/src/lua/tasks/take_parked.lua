-- Fetches parked jobs of classes that the node knows, in their order. Those of a queue that it does not serve, or that is
-- paused or at its limit, and what may be what kills nodes where one of these runs, go back to the head of their queues.
-- KEYS: unused key, leases, running, parked classes, paused, queues; the starts of keys: parked, ready, again, suspects.
-- ARGV: generation, µs until which jobs are fetched, most jobs, first token, most bytes, '1' if a suspect may be fetched,
-- channel, number of queues, number of limits; then the queues, the most jobs of each if some have limits, the classes.
-- Returns queue and entry of each job that is fetched, and the keys that are spoilt.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not lease then
    return false
end
redis.call('HLEN', KEYS[3])
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local wanted, token, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local queues, limits = tonumber(ARGV[8]), tonumber(ARGV[9])
local fetched, spoilt = {}, {}
-- An expired lease is to be renewed first: its generation may be reaped before it learns what it has fetched.
if us > tonumber(ARGV[2]) or tonumber(lease) <= us then
    return { fetched, spoilt }
end
local takes_suspect = ARGV[6] == '1'
local put = placer(KEYS[6], KEYS[8], KEYS[9], KEYS[10], ARGV[7])
local left = {}
for n = 10, 9 + queues do
    if redis.pcall('SISMEMBER', KEYS[5], ARGV[n]) ~= 1 then
        left[ARGV[n]] = limits > 0 and tonumber(ARGV[queues + n]) or math.huge
    end
end
for n = 10 + queues + limits, #ARGV do
    local list, steps = KEYS[7] .. ARGV[n], 0
    while wanted > 0 and bytes > 0 and steps < 100 do
        steps = steps + 1
        local entry = redis.pcall('LINDEX', list, 0)
        if not entry then
            redis.pcall('SREM', KEYS[4], ARGV[n])
            break
        elseif type(entry) ~= 'string' then
            spoilt[#spoilt + 1] = list
            break
        end
        local queue, attempts, deaths, stalls, job = string.match(entry, '^%d+ (.-) (%d+) (%d+) (%d+) (.*)$')
        local is_suspect = queue and deaths + stalls + 1 >= 3
        local key
        if not queue then
            key = list
        elseif (left[queue] or 0) > 0 and (takes_suspect or not is_suspect) then
            local counters = ' ' .. (attempts + 1) .. ' ' .. deaths .. ' ' .. stalls
            redis.call('HSET', KEYS[3], string.format('%.0f', token) .. ' ' .. queue .. counters, job)
            fetched[#fetched + 1] = queue
            fetched[#fetched + 1] = attempts .. ' ' .. deaths .. ' ' .. stalls .. ' ' .. job
            token, wanted, bytes = token + 1, wanted - 1, bytes - #job
            left[queue], takes_suspect = left[queue] - 1, takes_suspect and not is_suspect
        else
            key = put(queue, attempts, deaths, stalls, job, true)
        end
        if key then
            spoilt[#spoilt + 1] = key
            redis.call('RPUSH', list, entry) -- behind the others, which it would keep from being looked at
        end
        redis.call('LPOP', list)
        if key then
            break -- alone in the list, it would be looked at and named again and again
        end
    end
end
return { fetched, spoilt }
