-- Enqueues the ticks of periodic tasks that are due and later than the last one of their task. Everything is read first: then
-- nothing can fail but the first write, on a full Redis.
-- KEYS: ticks, queues, delayed jobs, generations that run jobs; the starts of keys: ready, again, suspects, parked, unique,
-- running, jobs that take turns; then, if some ticks are tracked, the start of the keys of reports, and those keys of these ticks.
-- ARGV: the node's idea of the time in µs, µs until which it may run, µs at which the node began to tick, µs by which
-- the node may be ahead, µs after which a schedule that no node has is forgotten, channel, then for each task: name, schedule,
-- the last tick that the node knows in ms or 0, the first tick after its time, number of due ticks, and for each of these: ms,
-- id or '' if it is left out, queue, text, '', claim or '', its ms.
-- Returns for each task the last tick, how many were skipped, how many were missed, and those that were enqueued; or `=` and the
-- schedule that counts; or `!` and the key that is spoilt.
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
if us > tonumber(ARGV[2]) then
    return redis.error_reply('LATE the deadline of these ticks has passed')
end
if us + ARGV[4] < tonumber(ARGV[1]) then
    return redis.error_reply('EARLY the clock of this node is ahead')
end
local ms, since, silence = math.floor(us / 1000), tonumber(ARGV[3]), tonumber(ARGV[5])

-- Whether the job that has a claim may still wait or run. Where another program took it, or emptied its queue, nothing releases
-- the claim. It is looked for only where its queue is empty, and among a thousand attempts at most.
local function is_held(claim, queue, task)
    local id = redis.call('GET', claim)
    if not id then
        return false
    end
    for _, list in ipairs({ KEYS[5] .. queue, KEYS[6] .. queue, KEYS[7] .. queue, KEYS[8] .. task }) do
        if redis.pcall('LLEN', list) ~= 0 then
            return true
        end
    end
    if redis.call('EXISTS', KEYS[11] .. queue) ~= 0 or redis.pcall('HEXISTS', KEYS[3], id) ~= 0 then
        return true
    end
    local left, own = 1000, '"id":"' .. id .. '"'
    for _, generation in ipairs(redis.pcall('ZRANGE', KEYS[4], 0, -1)) do
        local running = KEYS[10] .. generation
        local length = redis.pcall('HLEN', running)
        left = left - (type(length) == 'number' and length or 1000)
        if left <= 0 then
            return true
        end
        local cursor = '0'
        repeat
            local page = redis.call('HSCAN', running, cursor, 'MATCH', '* ' .. queue .. ' *', 'COUNT', 100)
            cursor = page[1]
            for n = 2, #page[2], 2 do
                if string.find(page[2][n], own, 1, true) then
                    return true
                end
            end
        until cursor == '0'
    end
    return false
end

-- The key that a tick needs and that is of another type.
local function spoilt_key(queue, claim)
    if type(redis.pcall('LLEN', KEYS[5] .. queue)) ~= 'number' then
        return KEYS[5] .. queue
    end
    if claim ~= '' and type(redis.pcall('GET', KEYS[9] .. claim)) == 'table' then
        return KEYS[9] .. claim
    end
end

local outcomes, writes, pushes, at = {}, {}, {}, 7
while at <= #ARGV do
    local task, schedule, known, following, count = unpack(ARGV, at, at + 4)
    local first_due = at + 5
    at = first_due + count * 7
    known, following = tonumber(known), tonumber(following)
    local field = redis.pcall('HGET', KEYS[1], task)
    local is_spoilt = type(field) == 'table'
    local last, began, seen, of = string.match(not is_spoilt and field or '', '^(%d+) (%d+) (%d+) (.*)$')
    last, began, seen = tonumber(last), tonumber(began), tonumber(seen)
    local outcome
    if is_spoilt then
        outcome = '!' .. KEYS[1]
    elseif last and of ~= schedule and began >= since and math.abs(us - seen) < silence then
        outcome = '=' .. of
    else
        local before = last
        if last and last > following and ms < following then
            last = nil -- made by a clock that was ahead
        end
        if known > 0 and known <= following then
            last = math.max(last or 0, known)
        end
        if not last then
            last = ms -- it does not tick for the past
        elseif of and of ~= schedule then
            last = math.max(last, ms)
        end
        local enqueued, skipped, missed, own_pushes, is_taken = {}, 0, 0, {}, nil
        for n = first_due, at - 1, 7 do
            local tick, id, queue, claim = tonumber(ARGV[n]), ARGV[n + 1], ARGV[n + 2], ARGV[n + 5]
            if tick > ms then
                break
            end
            if tick > last then
                if id == '' then
                    missed = missed + 1
                else
                    local key = spoilt_key(queue, claim)
                    if key then
                        outcome = '!' .. key
                        break
                    end
                    if is_taken == nil then
                        is_taken = claim ~= '' and is_held(KEYS[9] .. claim, queue, task)
                    end
                    if is_taken then
                        skipped = skipped + 1
                    else
                        own_pushes[#own_pushes + 1] = n
                        enqueued[#enqueued + 1] = ARGV[n]
                        is_taken = claim ~= ''
                    end
                end
                last = tick
            end
        end
        if not outcome then
            outcome = { string.format('%.0f', last), skipped, missed, enqueued }
            local is_new = of ~= schedule or last ~= before or began < since
            if is_new or math.abs(us - seen) > silence / 10 then
                began = of == schedule and math.max(began, since) or since
                writes[#writes + 1] = task
                writes[#writes + 1] = string.format('%.0f %.0f %.0f %s', last, began, us, schedule)
            end
            for _, n in ipairs(own_pushes) do
                pushes[#pushes + 1] = n
            end
        end
    end
    outcomes[#outcomes + 1] = outcome
end

if #writes > 0 then
    redis.call('HSET', KEYS[1], unpack(writes))
    redis.call('EXPIRE', KEYS[1], 7776000)
end
local put = placer(KEYS[2], KEYS[5], KEYS[6], KEYS[7], ARGV[6], KEYS[11])
local tracked = {}
for n = 13, #KEYS do
    tracked[KEYS[n]] = true
end
for _, n in ipairs(pushes) do
    put(ARGV[n + 2], 0, 0, 0, ARGV[n + 3], false)
    if ARGV[n + 5] ~= '' then
        redis.call('SET', KEYS[9] .. ARGV[n + 5], ARGV[n + 1], 'PX', ARGV[n + 6])
    end
    if #KEYS > 11 and tracked[KEYS[12] .. ARGV[n + 1]] then
        track(KEYS[12] .. ARGV[n + 1], 7 * 86400000)
    end
end
return outcomes
