-- Settles the attempts of a generation that have ended, and fetches jobs for it.
-- Begins with constants, which name its keys and the starts of others: an argument costs a third of a command, and only the
-- first of these differs from call to call.
-- KEYS: running.
-- ARGV: generation; µs until which jobs are fetched, most jobs, last six digits of the first token, most bytes, 1 if a
-- suspect may be fetched, 1 if the node says that it serves its queues, number of queues, of plain successes, of ids of these,
-- and of other ends, all in one text, behind them, if some queues have limits, 1 if an attempt of one of these has ended, 1 for
-- each queue that has one, and the limits; the other digits of the first token. Then the queues, the successes, those of queues
-- with limits last, their ids, and for each other end: field, verb, id, claim, x, id of its report or '', progress or '', result
-- or '', and, if the verb ends with `+`, its name as a member of a batch or '', 1 if it may have a checkpoint, the number of its
-- follow-on jobs, and these; then, if some have one, the most jobs of each queue, '' for as many as are wanted.
-- Returns the number of missing successes, that of dropped failures, when the next delayed job is due or '', the number of
-- marks, more than 0 if jobs may be left, and 0 or the outcomes of other ends, the spoilt keys, and the queues that a limit holds
-- up. Then the jobs, in groups: the place of the queue among those of the call, 1 if they have counters, their number, and so
-- many jobs.
-- Most of its time is that of its commands, half a microsecond each, so it asks by one for what is seldom there. A list in
-- the reply costs as much, and so does a number that Lua hands to a command, or formats by '%.0f'.
local generation, running, millions = ARGV[1], KEYS[1], ARGV[3]
local fetch_until, wanted, low, bytes, takes_suspect, announces, queues, successes, ids, others =
    struct.unpack('<dI4I4I4I4I4I4I4I4I4', ARGV[2])
local lease, us = begin_call(UNUSED, LEASES, running, generation, successes > 0)
if not lease then
    return false
end
local at = 4 + queues
local limited = read_limits and (announces == 1 or string.byte(rules_text, rules_at) == 1)
    and read_limits(rules_at + 1 + queues)

local missing = 0
if successes > 0 then
    local removed
    if limited then
        removed = limited.remove(running, at, successes)
    else
        removed = redis.call('HDEL', running, unpack(ARGV, at, at + successes - 1))
    end
    missing = successes - removed
    at = at + successes
    if removed > 0 then
        redis.pcall('INCRBY', PROCESSED, string.format('%d', removed))
        if ids > 0 then
            local length = redis.pcall('RPUSH', DONE, unpack(ARGV, at, at + ids - 1))
            if type(length) == 'number' and length > 11000 then
                redis.call('LTRIM', DONE, -10000, -1)
            end
        end
    end
    at = at + ids
end

local outcomes, dropped, spoilt = {}, 0, {}
if others > 0 then
    --[[ of shared.lua, placer.lua, batches.lua, follow_ups.lua ]]
    local put = placer(QUEUES, READY, AGAIN, SUSPECTS, CHANNEL, FAIR)
    local counters
    for n = 1, others do
        local field, verb, id, claim, x, reported, progress, result = unpack(ARGV, at, at + 7)
        at = at + 8
        local member, checkpoint, follow_ups, first = '', '0', 0, 0
        if string.sub(verb, -1) == '+' then
            verb, member, checkpoint = string.sub(verb, 1, -2), ARGV[at], ARGV[at + 1]
            follow_ups, first = tonumber(ARGV[at + 2]), at + 3
            at = first + 9 * follow_ups
        end
        local job = redis.call('HGET', running, field)
        local outcome, ends_batch = 'accepted', false
        if not job then
            outcome = 'superseded'
        else
            -- Resque's tools may name a queue in any way.
            local number, queue, attempts, deaths, stalls = string.match(field, '^(%d+) (.+) (%d+) (%d+) (%d+)$')
            local key, over, attempt, fewer, batch
            if number then
                attempt, fewer = generation .. ':' .. number, math.max(attempts - 1, 0)
            end
            if member ~= '' then
                counters = counters or batch_counters(put, BATCHES, BATCHES_ENDED, READY, BATCHES_DUE)
                batch, key = counters.find(member)
            end
            if follow_ups > 0 and not key then
                key = find_spoilt(first, follow_ups)
            end
            if key or not number then
                key = key or running .. ' ' .. field
            elseif verb == 'done' or verb == 'dropped' then
                over = 0
            elseif verb == 'failed' then
                key, over = fail(FAILED, FAILED_IDS, FAILURES, FAILED_MAX, id, x, us)
                dropped = dropped + over
            elseif verb == 'back' then
                key = put(queue, fewer, deaths, stalls, job, true)
            elseif verb == 'park' then
                if type(redis.pcall('SADD', PARKED, x)) ~= 'number' then
                    key = PARKED
                else
                    local entry = string.format('%.0f', math.floor(us / 1000)) .. ' ' .. queue .. ' ' .. fewer .. ' ' .. deaths
                        .. ' ' .. stalls .. ' ' .. job
                    if type(redis.pcall('RPUSH', PARKED_OF .. x, entry)) ~= 'number' then
                        key = PARKED_OF .. x
                    end
                end
            else
                local counted = verb == 'retry' and attempts or fewer
                if tonumber(x) * 1000 <= us then
                    key = put(queue, counted, deaths, stalls, job, false)
                else
                    local entry = queue .. ' ' .. counted .. ' ' .. deaths .. ' ' .. stalls .. ' ' .. job
                    key = delay(DELAYED, DELAYED_JOBS, id, attempt, x, entry)
                end
            end
            if key then
                outcome = key
            else
                redis.call('HDEL', running, field)
                if limited then
                    limited.free(queue)
                end
                if verb == 'done' then
                    redis.pcall('INCR', PROCESSED)
                    local length = id ~= '' and redis.pcall('RPUSH', DONE, id)
                    if type(length) == 'number' and length > 11000 then
                        redis.call('LTRIM', DONE, -10000, -1)
                    end
                elseif verb == 'dropped' and id ~= '' then
                    redis.pcall('ZREM', DELETED, id)
                end
                if checkpoint == '1' and verb ~= 'failed' then
                    redis.call('DEL', CHECKPOINTS .. id)
                end
                if follow_ups > 0 then
                    store_follow_ups(put, us, first, follow_ups)
                end
                if batch then
                    local before = counters.count_over()
                    counters.count(batch, verb == 'dropped' and 'deleted' or verb)
                    ends_batch = counters.count_over() > before
                end
                if reported ~= '' then
                    spoilt[#spoilt + 1] = report(REPORTS, CHANNEL, reported, generation .. ' ' .. field, progress, result,
                        over and verb)
                end
                if over and claim ~= '' and not release(UNIQUE .. claim, id) then
                    outcome = 'claim lost'
                end
            end
        end
        outcomes[n] = ends_batch and outcome .. '+' or outcome
    end
end

local limits = at - 4
local more, reply, size = 0, { missing, dropped, '', 0, 0, 0 }, 6
local function length_of(key)
    local length = redis.pcall('LLEN', key)
    if type(length) == 'number' then
        return length
    end
    spoilt[#spoilt + 1] = key
    return 0
end

if announces == 1 then
    for n = 4, 3 + queues do
        local key = SERVING .. ARGV[n]
        redis.pcall('ZADD', key, string.format('%.0f', us), generation)
        redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', us - 5000000))
        redis.pcall('PEXPIRE', key, 10000)
    end
    redis.pcall('ZADD', RUNNERS, string.format('%.0f', us), generation)
    if limited then
        limited.recount(running, us)
    end
    -- Generations that said nothing for long. One without a lease that was not reaped, because a node of an earlier release
    -- reaped it or Redis came back with older data, is to be claimed: its attempts are listed and no node runs them.
    local silent = redis.pcall('ZRANGEBYSCORE', RUNNERS, '-inf', string.format('%.0f', us - 15000000), 'LIMIT', 0, 10)
    for _, name in ipairs(silent) do
        if redis.call('EXISTS', RUNNING_OF .. name) == 0 then
            redis.call('ZREM', RUNNERS, name)
        elseif redis.call('ZSCORE', LEASES, name) then
            redis.call('ZADD', RUNNERS, string.format('%.0f', us), name)
        else
            redis.pcall('ZADD', CLAIMS, 'NX', string.format('%.0f', us), name)
        end
    end
end

local has_paused = false
if redis.call('EXISTS', PAUSED, DELETED, DELAYED, SCHEDULE, BATCHES_DUE) > 0 then
    has_paused = redis.call('EXISTS', PAUSED) == 1
    local marks = redis.pcall('ZCARD', DELETED)
    reply[3], reply[4] = next_due(DELAYED, SCHEDULE, BATCHES_DUE), type(marks) == 'number' and marks or 0
end

-- An expired lease is to be renewed first: its generation may be reaped before it learns what it has fetched.
if wanted > 0 and us <= fetch_until and lease > us then
    local format = string.format

    -- The form of the fields of next attempts of a queue, without their counters where jobs have some: one command makes a field of
    -- it and of the next digits of the token. Each further text that is made on the way costs a job a twentieth of this script.
    -- Begins the next million of tokens where one is used up.
    --
    -- A token has too many digits for '%d' where Redis is a 32-bit build: its millions stay a text.
    local function form_of(queue, has_counters)
        if low == 1000000 then
            millions, low = format('%.0f', (tonumber(millions) or 0) + 1), 0
        end
        if string.find(queue, '%', 1, true) then
            queue = string.gsub(queue, '%%', '%%%%')
        end
        return millions .. (millions == '' and '%d ' or '%06d ') .. queue .. (has_counters and ' ' or ' 1 0 0')
    end

    -- The field of the next attempt, and its job.
    local function attempt(form, job, has_counters)
        local field = format(form, low)
        low = low + 1
        if has_counters then
            local attempts, deaths, stalls, text = string.match(job, '^!?(%d+) (%d+) (%d+) (.*)$')
            if are_counters(attempts, deaths, stalls) then
                return field .. (attempts + 1) .. ' ' .. deaths .. ' ' .. stalls, text
            end
            return field .. '1 0 0', job
        end
        return field, job
    end

    -- Takes jobs from a list, and returns how many. The length of a job is known when it is taken: one is taken first, and
    -- several at once only after short ones.
    local function take(key, n_queue, has_counters, most)
        local job = most > 0 and bytes > 0 and redis.pcall('LPOP', key)
        if type(job) ~= 'string' then
            if job then
                spoilt[#spoilt + 1] = key
            end
            return 0
        end
        local form, taken, longest, count_at = form_of(ARGV[n_queue], has_counters), 1, #job, size + 3
        redis.call('HSET', running, attempt(form, job, has_counters))
        reply[size + 1], reply[size + 2], reply[size + 4] = n_queue - 4, has_counters and 1 or 0, job
        size, bytes = size + 4, bytes - longest
        while taken < most and bytes > 0 do
            if low == 1000000 then
                form = form_of(ARGV[n_queue], has_counters)
            end
            local step = longest <= 1024 and 16 or longest <= 4096 and 8 or 1
            local jobs = redis.call('LPOP', key, format('%d', math.min(most - taken, step, 1000000 - low)))
            if not jobs then
                break
            end
            local listed = {}
            longest = 0
            for n = 1, #jobs do
                job = jobs[n]
                local length = #job
                reply[size + n] = job
                bytes = bytes - length
                if length > longest then
                    longest = length
                end
                listed[2 * n - 1], listed[2 * n] = attempt(form, job, has_counters)
            end
            redis.call('HSET', running, unpack(listed))
            size, taken = size + #jobs, taken + #jobs
        end
        reply[count_at] = taken
        wanted = wanted - taken
        return taken
    end

    takes_suspect = takes_suspect == 1
    for n = 4, 3 + queues do
        local queue = ARGV[n]
        local is_paused = has_paused and redis.pcall('SISMEMBER', PAUSED, queue)
        if type(is_paused) == 'table' then
            spoilt[#spoilt + 1] = PAUSED
        end
        local rule
        if read_limits and string.byte(rules_text, rules_at + n - 3) == 1 then
            limited = limited or read_limits(rules_at + 1 + queues)
            rule = limited.of[queue]
        end
        -- A node may know many queues with limits, of which most are empty: nothing else is read of these.
        if is_paused ~= 1 and (not rule
            or redis.call('EXISTS', READY .. queue, AGAIN .. queue, SUSPECTS .. queue, FAIR .. queue) > 0
            and limited.room(rule, us, spoilt) > 0) then
            if wanted == 0 or bytes <= 0 then
                more = 1 -- there may be some
                break
            end
            local ready, again, suspects = READY .. queue, AGAIN .. queue, SUSPECTS .. queue
            local most, before = math.min(wanted, tonumber(ARGV[limits + n]) or wanted), wanted
            -- How many wait matters only where several are wanted: a single one is there, or it is not.
            local is_single, waiting, counted, in_turns = wanted == 1, 1, 0, 0
            if rule then
                most, is_single = math.min(most, rule.room), is_single and not rule.takes_turns
            end
            if not is_single then
                waiting = length_of(ready)
            end
            if redis.call('EXISTS', again, suspects) > 0 then
                counted = length_of(again)
                if takes_suspect and length_of(suspects) > 0 and take(suspects, n, true, 1) > 0 then
                    takes_suspect = false
                    most = most - 1
                end
            end
            local left = waiting + counted
            if rule then
                if rule.takes_turns then
                    in_turns = limited.waiting_in_turns(rule, most, spoilt)
                end
                -- What its limit keeps is no reason to look again.
                left = math.min(left + in_turns, rule.room - (before - wanted))
            end
            if left > 0 then
                local share = most
                if most > 1 and left < most * 1000 then -- a cluster has fewer nodes
                    local nodes = redis.pcall('ZCARD', SERVING .. queue)
                    nodes = type(nodes) == 'number' and math.max(nodes, 1) or 1
                    share = math.min(most, math.ceil(left / nodes))
                end
                local taken = 0
                if in_turns > 0 then -- these and all others: in turn, as below
                    local most_turns = waiting + counted > 0 and math.floor((share + low % 2) / 2) or share
                    taken = limited.take_turns(rule, n, most_turns, take)
                end
                if counted > 0 then
                    -- Given back: first. Those that ran before and fresh ones: in turn, by the parity of the token; by its next
                    -- digit where the parity has decided that it is their turn.
                    local is_back = string.sub(redis.call('LINDEX', again, 0), 1, 1) == '!'
                    local rest, number = share - taken, in_turns > 0 and math.floor(low / 2) or low
                    local half = math.floor((rest + number % 2) / 2)
                    taken = taken + take(again, n, true, is_back and rest or half)
                end
                if waiting > 0 then
                    taken = taken + take(ready, n, false, share - taken)
                end
                if taken < share and counted > 0 then
                    taken = taken + take(again, n, true, share - taken)
                end
                if taken < share and in_turns > 0 then
                    taken = taken + limited.take_turns(rule, n, share - taken, take)
                end
                if not is_single then
                    more = more + left - taken
                elseif most == 0 or taken > 0 then
                    more = 1 -- there may be some
                end
            end
            if rule then
                rule.begun = before - wanted
            end
        end
    end
end

local held_up = limited and limited.finish(us) or nil
reply[5] = more
if others > 0 or #spoilt > 0 or held_up then
    reply[6] = { outcomes, spoilt, held_up }
end
return reply
