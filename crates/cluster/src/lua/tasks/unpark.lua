-- Moves parked jobs of some classes to the head of their queues, in their order.
-- KEYS: unused key, parked classes, queues; the starts of keys: ready, again, suspects, parked. ARGV: channel, most jobs of a
-- class, classes.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local put = placer(KEYS[3], KEYS[4], KEYS[5], KEYS[6], ARGV[1])
local moved, spoilt = 0, {}
for n = 3, #ARGV do
    local list = KEYS[7] .. ARGV[n]
    local jobs = redis.pcall('LRANGE', list, 0, ARGV[2] - 1)
    if jobs.err then
        spoilt[#spoilt + 1] = list
    else
        for at = #jobs, 1, -1 do
            local queue, attempts, deaths, stalls, job = string.match(jobs[at], '^%d+ (.-) (%d+) (%d+) (%d+) (.*)$')
            local key = list
            if queue then
                key = put(queue, attempts, deaths, stalls, job, true)
            end
            if key then
                spoilt[#spoilt + 1] = key
                -- Behind the others, which it would keep from being looked at.
                if key ~= list and type(redis.pcall('RPUSH', list, jobs[at])) == 'number' then
                    redis.call('LREM', list, 1, jobs[at])
                end
            else
                redis.call('LREM', list, 1, jobs[at])
                moved = moved + 1
            end
        end
        if redis.call('EXISTS', list) == 0 then
            redis.pcall('SREM', KEYS[2], ARGV[n])
        end
    end
end
return { moved, spoilt }
