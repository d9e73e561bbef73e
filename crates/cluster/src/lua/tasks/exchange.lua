-- Settles the attempts of a generation that have ended, and fetches jobs for it.
-- KEYS: unused key, leases, running, processed, done, paused, marks of deletion, delayed, resque's schedule; the starts of
-- keys: ready, again, suspects, serving. Then, if there are other ends than successes, or the node says that it serves its
-- queues: failures, failed, ids of the failed, delayed jobs, parked classes, queues, generations that run jobs, claims of
-- reapers; the starts of keys: parked, unique, running, reports.
-- ARGV: generation, µs until which jobs are fetched, most jobs, first token, most bytes, '1' if a suspect may be fetched,
-- '1' if the node says that it serves its queues, channel, most failed jobs kept, number of queues, plain successes, ids of
-- these, other ends; then the queues, the successes, their ids, and for each other end: field, verb, id, claim, x, id of
-- its report or '', progress or '', result or ''; then, if some have one, the most jobs of each queue, '' for as many as
-- are wanted.
-- Returns the number of missing successes, that of dropped failures, when the next delayed job is due or '', the number of
-- marks, that of jobs that are left, and 0 or the outcomes of other ends and the spoilt keys. Then the jobs, in groups: the
-- place of the queue among those of the call, 1 if they have counters, their number, and so many jobs.
-- Most of its time is that of its commands, half a microsecond each, so it asks by one for what is seldom there. A list in
-- the reply costs as much, and so does a number that Lua hands to a command, or formats by '%.0f'.
local generation = ARGV[1]
local lease, us = begin_call(KEYS[1], KEYS[2], KEYS[3], generation, ARGV[11] ~= '0')
if not lease then
    return false
end
local wanted, bytes = tonumber(ARGV[3]), tonumber(ARGV[5])
local queues, successes, ids, others = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local at = 14 + queues

local missing = 0
if successes > 0 then
    local removed = redis.call('HDEL', KEYS[3], unpack(ARGV, at, at + successes - 1))
    missing = successes - removed
    at = at + successes
    if removed > 0 then
        redis.pcall('INCRBY', KEYS[4], missing == 0 and ARGV[11] or removed)
        if ids > 0 then
            local length = redis.pcall('RPUSH', KEYS[5], unpack(ARGV, at, at + ids - 1))
            if type(length) == 'number' and length > 11000 then
                redis.call('LTRIM', KEYS[5], -10000, -1)
            end
        end
    end
    at = at + ids
end

local outcomes, dropped, spoilt = {}, 0, {}
if others > 0 then
    local put = placer(KEYS[19], KEYS[10], KEYS[11], KEYS[12], ARGV[8])
    for n = 1, others do
        local field, verb, id, claim, x, reported, progress, result = unpack(ARGV, at, at + 7)
        at = at + 8
        local job = redis.call('HGET', KEYS[3], field)
        local outcome = 'accepted'
        if not job then
            outcome = 'superseded'
        else
            -- Resque's tools may name a queue in any way.
            local number, queue, attempts, deaths, stalls = string.match(field, '^(%d+) (.+) (%d+) (%d+) (%d+)$')
            local key, over, attempt, fewer
            if number then
                attempt, fewer = generation .. ':' .. number, math.max(attempts - 1, 0)
            end
            if not number then
                key = KEYS[3] .. ' ' .. field
            elseif verb == 'done' or verb == 'dropped' then
                over = 0
            elseif verb == 'failed' then
                key, over = fail(KEYS[15], KEYS[16], KEYS[14], tonumber(ARGV[9]), id, x, us)
                dropped = dropped + over
            elseif verb == 'back' then
                key = put(queue, fewer, deaths, stalls, job, true)
            elseif verb == 'park' then
                if type(redis.pcall('SADD', KEYS[18], x)) ~= 'number' then
                    key = KEYS[18]
                else
                    local entry = string.format('%.0f', math.floor(us / 1000)) .. ' ' .. queue .. ' ' .. fewer .. ' ' .. deaths
                        .. ' ' .. stalls .. ' ' .. job
                    if type(redis.pcall('RPUSH', KEYS[22] .. x, entry)) ~= 'number' then
                        key = KEYS[22] .. x
                    end
                end
            else
                local counted = verb == 'retry' and attempts or fewer
                if tonumber(x) * 1000 <= us then
                    key = put(queue, counted, deaths, stalls, job, false)
                else
                    local entry = queue .. ' ' .. counted .. ' ' .. deaths .. ' ' .. stalls .. ' ' .. job
                    key = delay(KEYS[8], KEYS[17], id, attempt, x, entry)
                end
            end
            if key then
                outcome = key
            else
                redis.call('HDEL', KEYS[3], field)
                if verb == 'done' then
                    redis.pcall('INCR', KEYS[4])
                    local length = id ~= '' and redis.pcall('RPUSH', KEYS[5], id)
                    if type(length) == 'number' and length > 11000 then
                        redis.call('LTRIM', KEYS[5], -10000, -1)
                    end
                elseif verb == 'dropped' and id ~= '' then
                    redis.pcall('ZREM', KEYS[7], id)
                end
                if reported ~= '' then
                    spoilt[#spoilt + 1] = report(KEYS[25] .. reported, generation .. ' ' .. field,
                        progress, result, 86400000)
                end
                if over and claim ~= '' and not release(KEYS[23] .. claim, id) then
                    outcome = 'claim lost'
                end
            end
        end
        outcomes[n] = outcome
    end
end

local limits = at - 14
local more, reply, size = 0, { missing, dropped, '', 0, 0, 0 }, 6
local function length_of(key)
    local length = redis.pcall('LLEN', key)
    if type(length) == 'number' then
        return length
    end
    spoilt[#spoilt + 1] = key
    return 0
end

if ARGV[7] == '1' then
    for n = 14, 13 + queues do
        local key = KEYS[13] .. ARGV[n]
        redis.pcall('ZADD', key, string.format('%.0f', us), generation)
        redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', us - 5000000))
        redis.pcall('PEXPIRE', key, 10000)
    end
    redis.pcall('ZADD', KEYS[20], string.format('%.0f', us), generation)
    -- Generations that said nothing for long. One without a lease that was not reaped, because a node of an earlier release
    -- reaped it or Redis came back with older data, is to be claimed: its attempts are listed and no node runs them.
    local silent = redis.pcall('ZRANGEBYSCORE', KEYS[20], '-inf', string.format('%.0f', us - 15000000), 'LIMIT', 0, 10)
    for _, name in ipairs(silent) do
        if redis.call('EXISTS', KEYS[24] .. name) == 0 then
            redis.call('ZREM', KEYS[20], name)
        elseif redis.call('ZSCORE', KEYS[2], name) then
            redis.call('ZADD', KEYS[20], string.format('%.0f', us), name)
        else
            redis.pcall('ZADD', KEYS[21], 'NX', string.format('%.0f', us), name)
        end
    end
end

-- Paused queues, marks, jobs that ran before, and delayed ones.
local has_rare, has_any = true, true
if wanted > 0 and queues <= 100 then
    local keys = { KEYS[6], KEYS[7] }
    for n = 14, 13 + queues do
        keys[#keys + 1] = KEYS[11] .. ARGV[n]
        keys[#keys + 1] = KEYS[12] .. ARGV[n]
    end
    has_any = redis.call('EXISTS', KEYS[8], KEYS[9], unpack(keys)) > 0
    has_rare = has_any and redis.call('EXISTS', unpack(keys)) > 0
end

-- An expired lease is to be renewed first: its generation may be reaped before it learns what it has fetched.
if wanted > 0 and us <= tonumber(ARGV[2]) and lease > us then
    -- Takes jobs from a list, and returns how many. The length of a job is known when it is taken: one is taken first, and
    -- several at once only after short ones.
    --
    -- A token has too many digits for '%d' where Redis is a 32-bit build: its millions stay a text.
    local head, low = string.sub(ARGV[4], 1, -7), tonumber(string.sub(ARGV[4], -6))
    local digits = head == '' and '%d' or '%06d'
    local function take(key, n_queue, has_counters, most)
        local taken, step, queue = 0, 1, ARGV[n_queue]
        local fresh = ' ' .. queue .. ' 1 0 0'
        while taken < most and bytes > 0 do
            local jobs = redis.call('LPOP', key, string.format('%d', math.min(most - taken, step)))
            if not jobs then
                break
            end
            local listed, longest = {}, 0
            reply[size + 1], reply[size + 2], reply[size + 3] = n_queue - 14, has_counters and 1 or 0, #jobs
            size = size + 3
            for n = 1, #jobs do
                local job, field = jobs[n], fresh
                local length = #job
                reply[size + n] = job
                bytes = bytes - length
                if length > longest then
                    longest = length
                end
                if has_counters then
                    local attempts, deaths, stalls, text = string.match(job, '^!?(%d+) (%d+) (%d+) (.*)$')
                    if are_counters(attempts, deaths, stalls) then
                        job, field = text, ' ' .. queue .. ' ' .. (attempts + 1) .. ' ' .. deaths .. ' ' .. stalls
                    end
                end
                listed[2 * n - 1], listed[2 * n] = head .. string.format(digits, low) .. field, job
                low = low + 1
                if low == 1000000 then
                    head, low, digits = string.format('%.0f', (tonumber(head) or 0) + 1), 0, '%06d'
                end
            end
            redis.call('HSET', KEYS[3], unpack(listed))
            size, taken = size + #jobs, taken + #jobs
            step = longest <= 1024 and 16 or longest <= 4096 and 8 or 1
        end
        wanted = wanted - taken
        return taken
    end

    local has_paused = has_rare and redis.call('EXISTS', KEYS[6]) == 1
    local takes_suspect = has_rare and ARGV[6] == '1'
    for n = 14, 13 + queues do
        local queue = ARGV[n]
        local is_paused = has_paused and redis.pcall('SISMEMBER', KEYS[6], queue)
        if type(is_paused) == 'table' then
            spoilt[#spoilt + 1] = KEYS[6]
        end
        if is_paused ~= 1 then
            local ready, again, suspects = KEYS[10] .. queue, KEYS[11] .. queue, KEYS[12] .. queue
            local waiting, counted = length_of(ready), has_rare and length_of(again) or 0
            local left = waiting + counted
            if wanted > 0 and bytes > 0 then
                local most = math.min(wanted, tonumber(ARGV[limits + n]) or wanted)
                if takes_suspect and length_of(suspects) > 0 and take(suspects, n, true, 1) > 0 then
                    takes_suspect = false
                    most = most - 1
                end
                if left > 0 then
                    local share = most
                    if most > 1 and left < most * 1000 then -- a cluster has fewer nodes
                        local nodes = redis.pcall('ZCARD', KEYS[13] .. queue)
                        nodes = type(nodes) == 'number' and math.max(nodes, 1) or 1
                        share = math.min(most, math.ceil(left / nodes))
                    end
                    local taken = 0
                    if counted > 0 then
                        -- Given back: first. Those that ran before and fresh ones: in turn, by the parity of the token.
                        local is_back = string.sub(redis.call('LINDEX', again, 0), 1, 1) == '!'
                        local half = math.floor((share + low % 2) / 2)
                        taken = take(again, n, true, is_back and share or half)
                    end
                    taken = taken + take(ready, n, false, share - taken)
                    if taken < share and counted > 0 then
                        taken = taken + take(again, n, true, share - taken)
                    end
                    left = left - taken
                end
            end
            more = more + left
        end
    end
end

local marks = has_rare and redis.pcall('ZCARD', KEYS[7])
if has_any then
    reply[3] = next_due(KEYS[8], KEYS[9])
end
reply[4], reply[5] = type(marks) == 'number' and marks or 0, more
if others > 0 or #spoilt > 0 then
    reply[6] = { outcomes, spoilt }
end
return reply
