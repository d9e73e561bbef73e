-- Moves delayed jobs that are due to their queues, ours and resque's, and ends batches whose deadlines have passed. One node does it
-- at a time, any node after it.
-- KEYS: unused key, delayed, delayed jobs, claim, resque's schedule, queues; the starts of keys: ready, again, suspects,
-- resque's delayed, resque's timestamps; failed, ids of the failed, failures; batches, members of batches that ended, deadlines
-- of batches; the start of keys: jobs that take turns. ARGV: this node, ms of its claim, channel, most jobs, most failed jobs kept.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local promoter = redis.pcall('GET', KEYS[4])
if type(promoter) == 'string' and promoter ~= ARGV[1] then
    return { 0, next_due(KEYS[2], KEYS[5], KEYS[17]), {}, 0 }
end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local put = placer(KEYS[6], KEYS[7], KEYS[8], KEYS[9], ARGV[3], KEYS[18])
local counters = batch_counters(put, KEYS[15], KEYS[16], KEYS[7], KEYS[17])
local moved, spoilt, most = 0, {}, tonumber(ARGV[4])

local due = redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', math.floor(us / 1000)), 'LIMIT', 0, most)
if due.err then
    spoilt[1], due = KEYS[2], {}
end
for _, id in ipairs(due) do
    local entry = redis.pcall('HGET', KEYS[3], id)
    local key = type(entry) == 'table' and KEYS[3]
    local queue, attempts, deaths, stalls, job = string.match(not key and entry or '', '^(%S+) (%d+) (%d+) (%d+) (.*)$')
    queue = are_counters(attempts, deaths, stalls) and queue
    if queue then
        key = put(queue, attempts, deaths, stalls, job, false)
    elseif entry and not key then -- it stays where it is, and is named
        spoilt[#spoilt + 1] = KEYS[3] .. ' ' .. id
    end
    if key then -- again in a second: it must not keep others waiting
        spoilt[#spoilt + 1] = key
        redis.call('ZADD', KEYS[2], string.format('%.0f', math.floor(us / 1000) + 1000), id)
    else
        redis.call('ZREM', KEYS[2], id)
        if queue then
            redis.call('HDEL', KEYS[3], id)
            moved = moved + 1
        end
    end
end

-- Not among the delayed jobs: a node of an earlier release would drop what is there without a job.
local expired = redis.pcall('ZRANGEBYSCORE', KEYS[17], '-inf', string.format('%.0f', math.floor(us / 1000)), 'LIMIT', 0, most)
if expired.err then
    spoilt[#spoilt + 1], expired = KEYS[17], {}
end
for _, id in ipairs(expired) do
    local batch, key = counters.read(id)
    if key then -- again in a second
        spoilt[#spoilt + 1] = key
        redis.call('ZADD', KEYS[17], string.format('%.0f', math.floor(us / 1000) + 1000), id)
    else
        redis.call('ZREM', KEYS[17], id)
        if batch then
            counters.complete(batch, 'expired')
            moved = moved + 1
        end
    end
end

-- A job that resque delayed: its queue is in its text, and may have any name of 1 to 100 bytes. One that names none fails.
local function promote(job)
    local is_json, read = pcall(cjson.decode, job)
    local queue = is_json and type(read) == 'table' and read.queue
    if type(queue) == 'string' and #queue >= 1 and #queue <= 100 then
        return put(queue, 0, 0, 0, job, false)
    end
    local record = '{"worker":"","queue":"","payload":{"class":"unreadable","queue":"","args":[' .. cjson.encode(job)
        .. ']},"exception":"unreadable","error":"a delayed job names no queue","backtrace":[],"failed_at":""}'
    return (fail(KEYS[12], KEYS[13], KEYS[14], tonumber(ARGV[5]), '', record, us))
end
local seconds = redis.pcall('ZRANGEBYSCORE', KEYS[5], '-inf', now[1], 'LIMIT', 0, 10)
if seconds.err then
    spoilt[#spoilt + 1] = KEYS[5]
end
for _, second in ipairs(seconds) do
    local list = KEYS[10] .. second
    while moved < most do
        local job = redis.pcall('LINDEX', list, 0)
        if not job then
            redis.call('ZREM', KEYS[5], second)
            break
        end
        local key = type(job) == 'table' and list or promote(job)
        if key then
            spoilt[#spoilt + 1] = key
            redis.call('ZADD', KEYS[5], now[1] + 60, second)
            break
        end
        redis.call('LPOP', list)
        redis.pcall('SREM', KEYS[11] .. job, 'delayed:' .. second)
        moved = moved + 1
    end
end
if moved < most then
    redis.call('DEL', KEYS[4])
end
return { moved, next_due(KEYS[2], KEYS[5], KEYS[17]), spoilt, counters.count_over() }
