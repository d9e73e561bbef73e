-- Follow-on jobs are arguments from `first` on, for each: id, queue, text, due in ms or '', claim or '', its ms, digest, ms for which
-- the id is remembered, 1 if it is tracked.

-- Reads what follow-on jobs need; returns the key that is spoilt.
local function find_spoilt(first, count)
    for n = first, first + 9 * count - 1, 9 do
        local ready, id, claim = READY .. ARGV[n + 1], IDS .. ARGV[n], UNIQUE .. ARGV[n + 4]
        if type(redis.pcall('LLEN', ready)) ~= 'number' then
            return ready
        end
        if type(redis.pcall('GET', id)) == 'table' then
            return id
        end
        if ARGV[n + 4] ~= '' and type(redis.pcall('GET', claim)) == 'table' then
            return claim
        end
        if ARGV[n + 3] ~= '' and type(redis.pcall('ZCARD', DELAYED)) ~= 'number' then
            return DELAYED
        end
        if ARGV[n + 3] ~= '' and type(redis.pcall('HLEN', DELAYED_JOBS)) ~= 'number' then
            return DELAYED_JOBS
        end
    end
end

-- Stores follow-on jobs, but for one that is there already, and one whose claim another job has.
local function store_follow_ups(put, us, first, count)
    for n = first, first + 9 * count - 1, 9 do
        local id, queue, job, due, claim, claim_ms, digest, id_ms, tracked = unpack(ARGV, n, n + 8)
        if not redis.call('GET', IDS .. id) and (claim == '' or not redis.call('GET', UNIQUE .. claim)) then
            if due ~= '' and tonumber(due) * 1000 > us then
                delay(DELAYED, DELAYED_JOBS, id, id, due, queue .. ' 0 0 0 ' .. job)
            else
                put(queue, 0, 0, 0, job, false)
            end
            if claim ~= '' then
                redis.call('SET', UNIQUE .. claim, id, 'PX', claim_ms)
            end
            redis.pcall('ZREM', DELETED, id) -- the mark was for an earlier job of this id
            redis.call('DEL', CHECKPOINTS .. id) -- and so was its checkpoint
            redis.call('SET', IDS .. id, digest, 'PX', id_ms)
            if tracked == '1' then
                track(REPORTS .. id, string.format('%.0f', id_ms + 6 * 86400000))
            end
        end
    end
end
