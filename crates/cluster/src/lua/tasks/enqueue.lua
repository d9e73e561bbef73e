-- Stores jobs, all or none. Everything is read first: then nothing can fail but the first write, on a full Redis.
-- KEYS: queues, delayed, delayed jobs; the starts of keys: ready, ids, unique; marks of deletion; for members of a batch: the batch.
-- Then, if some jobs are tracked: the start of the keys of reports, also in place of a batch if there is none, and those keys.
-- ARGV: µs until which it may run, channel, ms for which an id is remembered, then for each job: id, queue, text, due in ms or
-- '', claim or '', its ms, digest or ''.
-- Returns 1 to 4 if the batch is unknown, sealed, expired, or would be too large, unless all jobs are there already. Else for each
-- '' if it is stored, 'conflict', or `=` and the id of the job that is stored; or the key that is spoilt.
local put -- where some take turns
--[[ turns ]]
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
if us > tonumber(ARGV[1]) then
    return redis.error_reply('LATE the deadline of this enqueue has passed')
end
local now_ms = math.floor(us / 1000)

local has_tracked, tracked = #KEYS > 8, {}
for n = 10, #KEYS do
    tracked[KEYS[n]] = true
end

local lengths = {}
for n, command in ipairs({ 'SCARD', 'ZCARD', 'HLEN' }) do
    if type(redis.pcall(command, KEYS[n])) ~= 'number' then
        return KEYS[n]
    end
end
for n = 4, #ARGV, 7 do
    local id, queue, claim, digest = ARGV[n], ARGV[n + 1], ARGV[n + 4], ARGV[n + 6]
    if not lengths[queue] then
        lengths[queue] = redis.pcall('LLEN', KEYS[4] .. queue)
        if type(lengths[queue]) ~= 'number' then
            return KEYS[4] .. queue
        end
    end
    if digest ~= '' and type(redis.pcall('GET', KEYS[5] .. id)) == 'table' then
        return KEYS[5] .. id
    end
    if claim ~= '' and type(redis.pcall('GET', KEYS[6] .. claim)) == 'table' then
        return KEYS[6] .. claim
    end
end

local members, before, refusal -- the number of the next member, and that of the first one that is added
if KEYS[8] and KEYS[8] ~= KEYS[9] then
    local batch = redis.pcall('HMGET', KEYS[8], 'end', 'sealed', 'total')
    if batch.err then
        return KEYS[8]
    end
    members = tonumber(batch[3])
    before = members
    if not members then
        refusal = 1
    elseif batch[1] == 'expired' then
        refusal = 3
    elseif batch[1] or batch[2] then
        refusal = 2
    elseif members + (#ARGV - 3) / 7 > 1000000 then
        refusal = 4
    end
end

local function outcome_of(n)
    local id, claim, digest = ARGV[n], ARGV[n + 4], ARGV[n + 6]
    local known = digest ~= '' and redis.call('GET', KEYS[5] .. id)
    if known then
        return known == digest and '=' .. id or 'conflict'
    end
    local holder = claim ~= '' and redis.call('GET', KEYS[6] .. claim)
    if holder then
        return '=' .. holder
    end
    if redis.call('HEXISTS', KEYS[3], id) == 1 then
        return '=' .. id
    end
    return ''
end

local outcomes, added, first = {}, {}, nil
if refusal then -- a job that runs again adds the members of its first run once more
    for n = 4, #ARGV, 7 do
        local outcome = outcome_of(n)
        if outcome == '' then
            return refusal
        end
        outcomes[#outcomes + 1] = outcome
    end
    return outcomes
end
for n = 4, #ARGV, 7 do
    local outcome = outcome_of(n)
    if outcome == '' then
        local id, queue, due, claim, digest = ARGV[n], ARGV[n + 1], tonumber(ARGV[n + 3]), ARGV[n + 4], ARGV[n + 6]
        local text = ARGV[n + 2]
        if members then -- a member's text ends with the name of its batch, and its number there
            text = string.sub(text, 1, -3) .. '#' .. string.format('%.0f', members) .. '"}'
            members = members + 1
        end
        if due and due > now_ms then
            redis.call('HSET', KEYS[3], id, queue .. ' 0 0 0 ' .. text)
            redis.call('ZADD', KEYS[2], ARGV[n + 3], id)
            first = first or {}
            first[id] = true
        else
            due = now_ms
            if not added[queue] then
                added[queue] = true
                redis.call('SADD', KEYS[1], queue)
            end
            if put then
                put(queue, 0, 0, 0, text, false)
            else
                redis.call('RPUSH', KEYS[4] .. queue, text)
            end
        end
        if claim ~= '' then
            redis.call('SET', KEYS[6] .. claim, id, 'PX', ARGV[n + 5])
        end
        if digest ~= '' then
            redis.pcall('ZREM', KEYS[7], id) -- the mark was for an earlier job of this id
            redis.call('DEL', CHECKPOINTS .. id) -- and so was its checkpoint
            redis.call('SET', KEYS[5] .. id, digest, 'PX', string.format('%.0f', due - now_ms + ARGV[3]))
        end
        if has_tracked and tracked[KEYS[9] .. id] then
            track(KEYS[9] .. id, string.format('%.0f', due - now_ms + 7 * 86400000))
        end
    end
    outcomes[#outcomes + 1] = outcome
end

if members and members > before then -- a full Redis refuses a write, also of what it has
    redis.call('HSET', KEYS[8], 'total', string.format('%.0f', members))
end
for queue in pairs(added) do
    if lengths[queue] == 0 and not put then
        redis.pcall('PUBLISH', ARGV[2], queue)
    end
end
-- Those who wait for the delayed job that was due first wait no longer for it.
if first and first[redis.call('ZRANGE', KEYS[2], 0, 0)[1]] then
    redis.pcall('PUBLISH', ARGV[2], '')
end
return outcomes
