-- Removes failed jobs, and may let them run again. Returns for each 'taken', 'missing', `=` and the id of the job that has the
-- claim, or `!` and the key that is spoilt.
-- KEYS: unused key, failed, ids of the failed, queues, delayed, delayed jobs; the starts of keys: ready, again, suspects,
-- unique; marks of deletion; the starts of keys: jobs that take turns, reports; those keys of the jobs that are tracked. ARGV:
-- channel, then for each: record, id or '', '1' if it is to run again, and then, or '' for all: id, queue, text, due in ms or '',
-- claim or '', its ms.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local now = redis.call('TIME')
local tracked = {}
for n = 14, #KEYS do
    tracked[KEYS[n]] = true
end
local put = placer(KEYS[4], KEYS[7], KEYS[8], KEYS[9], ARGV[1], KEYS[12])

local function take(record, known, runs_again, id, queue, job, due_ms, claim, claim_ms)
    local place = redis.call('LPOS', KEYS[2], record)
    if not place then
        return 'missing'
    end
    if runs_again == '1' then
        local holder = claim ~= '' and redis.call('GET', KEYS[10] .. claim)
        if holder then
            return '=' .. holder
        end
        local due, key = tonumber(due_ms), nil
        if due and due > now[1] * 1000 + now[2] / 1000 then
            key = delay(KEYS[5], KEYS[6], id, id .. ':' .. now[1] .. now[2], due_ms, queue .. ' 0 0 0 ' .. job)
        else
            key = put(queue, 0, 0, 0, job, false)
        end
        if key then
            return '!' .. key
        end
        redis.pcall('ZREM', KEYS[11], id)
        -- One whose task this node does not have is tracked as before.
        local reports = KEYS[13] .. id
        if tracked[reports] or redis.pcall('HEXISTS', reports, 'tracked') == 1 then
            track(reports, 7 * 86400000)
        end
        if claim ~= '' then
            redis.call('SET', KEYS[10] .. claim, id, 'PX', claim_ms)
        end
    end
    if place == 0 then
        redis.call('LPOP', KEYS[2])
    else
        redis.call('LREM', KEYS[2], 1, record)
    end
    if known ~= '' then
        redis.pcall('ZREM', KEYS[3], known)
    end
    return 'taken'
end

local outcomes = {}
for n = 2, #ARGV, 9 do
    outcomes[#outcomes + 1] = take(unpack(ARGV, n, n + 8))
end
return outcomes
