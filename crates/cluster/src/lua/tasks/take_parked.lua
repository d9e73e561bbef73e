-- Fetches parked jobs of classes that the node knows, in their order. Those of a queue that it does not serve, or that is
-- paused, and what may be what kills nodes where one of these runs, stay where they are, as old as they are. Those of a queue that is
-- at its limit go back to its head.
-- KEYS: unused key, leases, running, parked classes, paused; the start of keys: parked.
-- ARGV: generation, µs until which jobs are fetched, most jobs, first token, most bytes, '1' if a suspect may be fetched,
-- number of queues, number of limits, the limits of queues in the cluster; then the queues, the most jobs of each if some have
-- limits, the classes.
-- Returns queue and entry of each job that is fetched, and the keys that are spoilt.
local lease, us = begin_call(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if not lease then
    return false
end
local wanted, token, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local queues, limits = tonumber(ARGV[7]), tonumber(ARGV[8])
local fetched, spoilt = {}, {}
-- An expired lease is to be renewed first: its generation may be reaped before it learns what it has fetched.
if us > tonumber(ARGV[2]) or lease <= us then
    return { fetched, spoilt }
end
local takes_suspect = ARGV[6] == '1'
local limited = read_limits and read_limits(rules_at)
local left, is_held, put = {}, {}, limited and placer(QUEUES, READY, AGAIN, SUSPECTS, CHANNEL, FAIR)
for n = 10, 9 + queues do
    local queue = ARGV[n]
    if redis.pcall('SISMEMBER', KEYS[5], queue) ~= 1 then
        left[queue] = limits > 0 and tonumber(ARGV[queues + n]) or math.huge
        if limited and limited.of[queue] then
            left[queue] = math.min(left[queue], limited.room(limited.of[queue], us, spoilt))
            is_held[queue] = left[queue] <= 0
        end
    end
end

-- Looks at a hundred entries from there on; returns whether it took one. An entry of another form is
-- left to those who fail old ones.
local function take(list, at)
    local taken = false
    for _ = 1, 100 do
        local entry = wanted > 0 and bytes > 0 and redis.call('LINDEX', list, at)
        if not entry then
            break
        end
        local queue, attempts, deaths, stalls, job = string.match(entry, '^%d+ (.-) (%d+) (%d+) (%d+) (.*)$')
        queue = are_counters(attempts, deaths, stalls) and queue
        local is_suspect = queue and deaths + stalls + 1 >= 3
        if queue and (left[queue] or 0) > 0 and (takes_suspect or not is_suspect) then
            local counters = ' ' .. (attempts + 1) .. ' ' .. deaths .. ' ' .. stalls
            redis.call('HSET', KEYS[3], string.format('%.0f', token) .. ' ' .. queue .. counters, job)
            redis.call('LREM', list, 1, entry) -- an equal one before it would have been taken
            fetched[#fetched + 1] = queue
            fetched[#fetched + 1] = attempts .. ' ' .. deaths .. ' ' .. stalls .. ' ' .. job
            token, wanted, bytes = token + 1, wanted - 1, bytes - #job
            left[queue], takes_suspect = left[queue] - 1, takes_suspect and not is_suspect
            if limited then
                limited.begin(queue)
            end
            taken = true
        elseif queue and is_held[queue] and not is_suspect then
            -- Each end makes room for the next job of its queue in its own call, so that one which is parked would never have any:
            -- it becomes the next one.
            local key = put(queue, attempts, deaths, stalls, job, true)
            if key then
                spoilt[#spoilt + 1], at = key, at + 1
            else
                redis.call('LREM', list, 1, entry)
                taken = true
            end
        else
            at = at + 1
        end
    end
    return taken
end

for n = 10 + queues + limits, #ARGV do
    local list = KEYS[6] .. ARGV[n]
    local length = redis.pcall('LLEN', list)
    if type(length) ~= 'number' then
        spoilt[#spoilt + 1] = list
    elseif length == 0 then
        redis.pcall('SREM', KEYS[4], ARGV[n])
    elseif not take(list, 0) and length > 100 then
        take(list, 100 + token % (length - 100)) -- another part each time: the first hundred may stay for long
    end
end
if limited then
    limited.finish(us)
end
return { fetched, spoilt }
