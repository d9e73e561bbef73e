-- Functions of scripts that move jobs: a script has those that it names, and they call none but those before them. An empty line
-- stands between two, and none in one.
-- A job is bytes: no script writes JSON of one again, which would change its numbers. A script has no rollback: a job is written
-- to its new place first, by pcall, and removed from the old one only if that worked. So a key that is spoilt, of another type,
-- costs no job; it is named in the reply.

-- Begins a call by which a node settles or fetches. Returns the end of its lease and the time, both in µs; nothing if it has no
-- lease. A script whose next command is an HDEL of `running` (`removes`) needs no further removal, and no check of its type.
local function begin_call(unused, leases, running, generation, removes)
    if not removes then
        redis.call('DEL', unused) -- a full Redis refuses a script whose first write may need memory
    end
    local lease = redis.call('ZSCORE', leases, generation)
    if not lease then
        return
    end
    if not removes then
        redis.call('HLEN', running) -- of another type, it ends the script before anything has changed
    end
    local now = redis.call('TIME')
    return tonumber(lease), now[1] * 1000000 + now[2]
end

-- Whether these are counters. Others may write into our lists, and a number of more digits would be written again in another
-- form: what has one is a text without counters.
local function are_counters(attempts, deaths, stalls)
    return attempts and #attempts <= 9 and #deaths <= 9 and #stalls <= 9
end

-- Delays a job; returns the key if that is spoilt. An id that another job has is made unique by the attempt's.
local function delay(delayed, jobs, id, attempt, due, entry)
    local taken = redis.pcall('HEXISTS', jobs, id)
    if type(taken) ~= 'number' then
        return jobs
    end
    if id == '' or taken == 1 then
        id = attempt
    end
    redis.call('HSET', jobs, id, entry)
    if type(redis.pcall('ZADD', delayed, due, id)) ~= 'number' then
        redis.call('HDEL', jobs, id)
        return delayed
    end
end

-- Appends the record of a failed job; returns the key if that is spoilt, and how many old records were dropped.
local function fail(failed, ids, count, most, id, record, us)
    local length = redis.pcall('RPUSH', failed, record)
    if type(length) ~= 'number' then
        return failed, 0
    end
    redis.pcall('INCR', count)
    if id ~= '' then
        redis.pcall('ZADD', ids, string.format('%.0f', us), id)
    end
    redis.pcall('ZREMRANGEBYRANK', ids, 0, -1 - most) -- also where another tool has emptied the list
    local excess = length - most
    if excess > 0 then
        redis.call('LTRIM', failed, excess, -1)
    end
    return nil, math.max(excess, 0)
end

-- Keeps the record of a job that failed in no attempt for a node that knows its class: the last ones, for a day. Returns how many
-- were dropped.
local function keep_unattended(classes, lists, class, most, record)
    local list = lists .. class
    local length = class ~= '' and redis.pcall('RPUSH', list, record)
    if type(length) ~= 'number' then
        return 0
    end
    redis.pcall('SADD', classes, class)
    for _, key in ipairs({ classes, list }) do
        redis.pcall('PEXPIRE', key, 86400000)
    end
    if length > most then
        redis.call('LTRIM', list, length - most, -1)
    end
    return math.max(length - most, 0)
end

-- Releases a claim, if this job has it; returns whether it had.
local function release(key, id)
    if redis.pcall('GET', key) ~= id then
        return false
    end
    redis.call('DEL', key)
    return true
end

-- Begins to track a job that is stored, without what one reported that had its id before.
local function track(key, ttl)
    redis.call('DEL', key)
    redis.call('HSET', key, 'tracked', '1')
    redis.call('PEXPIRE', key, ttl)
end

-- Keeps what an attempt reports of its job, '' is nothing, and how that has ended, if it has. An end alone is kept of tracked jobs,
-- for those who wait for it. Returns the key if that is spoilt.
local function report(reports, channel, id, attempt, progress, result, ending)
    local key = reports .. id
    if progress == '' and result == '' then
        local is_tracked = redis.pcall('HEXISTS', key, 'tracked')
        if is_tracked ~= 1 then
            return type(is_tracked) ~= 'number' and key or nil
        end
    end
    if type(redis.pcall('HSET', key, 'attempt', attempt)) ~= 'number' then
        return key
    end
    if progress ~= '' then
        redis.call('HSET', key, 'progress', progress)
    end
    if result ~= '' then
        redis.call('HSET', key, 'result', result)
    end
    if ending then
        redis.call('HSET', key, 'end', ending)
    end
    -- A job that is not over may be known for longer.
    if ending or redis.call('PTTL', key) < 86400000 then
        redis.call('PEXPIRE', key, 86400000)
    end
    if ending then
        redis.pcall('PUBLISH', channel .. ':' .. id, ending)
    end
end

-- Notes the end of a job that ended in no attempt, if it is tracked.
local function note_end(reports, channel, id, ending)
    local key = reports .. id
    if id ~= '' and redis.pcall('HEXISTS', key, 'tracked') == 1 then
        redis.call('HSET', key, 'end', ending)
        redis.call('PEXPIRE', key, 86400000)
        redis.pcall('PUBLISH', channel .. ':' .. id, ending)
    end
end

-- When the next delayed job is due, in ms: the smaller of ours and of resque's, which counts seconds; '' if there is none.
-- A foreign enqueuer may write a time before 1970, which is due like 0; 0 is first, so that -0 is 0 too.
local function next_due(delayed, schedule, batches_due)
    local ours = redis.pcall('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
    local resques = redis.pcall('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
    ours, resques = tonumber(ours), tonumber(resques)
    local batch = tonumber(redis.pcall('ZRANGE', batches_due, 0, 0, 'WITHSCORES')[2])
    local due = math.min(ours or math.huge, resques and resques * 1000 or math.huge, batch or math.huge)
    return due < math.huge and string.format('%.0f', math.max(0, due)) or ''
end
