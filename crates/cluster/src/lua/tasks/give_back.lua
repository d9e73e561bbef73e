-- Moves attempts of a dead generation to the head of their queues. One that was deleted is dropped; a convicted one fails.
-- KEYS: unused key, reapers, running, queues; the starts of keys: ready, again, suspects, unique; failed, ids of the failed,
-- failures, marks of deletion; the start of keys: serving; classes of failures that no node attended to; the start of keys:
-- their records; mark that the node came back, jobs for which this reap counted as a death; the starts of keys: deaths of a job
-- that were stalls, attempts of a queue that count for its limit; batches, members of batches that ended, deadlines of batches; the starts
-- of keys: reports, jobs that take turns. ARGV: the reaper, the dead generation, channel, most failed jobs kept, most such records
-- of a class, ms for which a death may turn out to be a stall, then for each attempt: field, id or '', claim or '', class or '',
-- its name as a member of a batch or '', the records without counters of its failure if nodes died of it and if they stood still,
-- '' where that cannot be.
-- Returns for each that was moved '', or its deaths, its stalls and its field if it is convicted; the keys that are spoilt; how
-- many records were dropped, and how many batches ended.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
    return false
end
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local put = placer(KEYS[4], KEYS[5], KEYS[6], KEYS[7], ARGV[3], KEYS[24])
local counters = batch_counters(put, KEYS[20], KEYS[21], KEYS[5], KEYS[22])
local moved, spoilt, left, dropped = {}, {}, {}, 0
local came_back, counts_deaths = redis.call('EXISTS', KEYS[16]) == 1, false
for n = 7, #ARGV, 7 do
    local field, id, claim, class, member, poison, stalled = unpack(ARGV, n, n + 6)
    local job = redis.call('HGET', KEYS[3], field)
    local queue, attempts, deaths, stalls = string.match(field, '^%d+ (.+) (%d+) (%d+) (%d+)$')
    if job and queue then
        if not left[queue] then -- it takes no share of what waits
            left[queue] = true
            redis.pcall('ZREM', KEYS[13] .. queue, ARGV[2])
            if redis.pcall('HDEL', KEYS[19] .. queue, ARGV[2]) == 1 then -- its attempts made no room at their end
                redis.pcall('PUBLISH', ARGV[3], queue)
            end
        end
        local is_deleted = id ~= '' and type(redis.pcall('ZSCORE', KEYS[12], id)) == 'string'
        local returned = id ~= '' and tonumber(redis.pcall('GET', KEYS[18] .. id))
        local turned = math.max(0, math.min(math.floor(returned or 0), deaths))
        deaths, stalls = deaths - turned + (came_back and 0 or 1), stalls + turned + (came_back and 1 or 0)
        local record = deaths >= 3 and poison or deaths + stalls >= 5 and stalled or ''
        if record ~= '' then
            record = record .. ',"attempts":' .. attempts .. ',"deaths":' .. deaths .. ',"stalls":' .. stalls .. '}'
        end
        local batch, key
        if (is_deleted or record ~= '') and member ~= '' then
            batch, key = counters.find(member)
        end
        if key then
            -- its end cannot count: it stays
        elseif not is_deleted and record ~= '' then
            key = fail(KEYS[9], KEYS[10], KEYS[11], tonumber(ARGV[4]), id, record, us)
        elseif not is_deleted then
            key = put(queue, math.max(attempts - 1, 0), deaths, stalls, job, true)
        end
        if key then
            spoilt[#spoilt + 1] = key
        else
            redis.call('HDEL', KEYS[3], field)
            if is_deleted then
                redis.call('ZREM', KEYS[12], id)
            elseif record ~= '' then
                dropped = dropped + keep_unattended(KEYS[14], KEYS[15], class, tonumber(ARGV[5]), record)
            elseif id ~= '' and not came_back then
                redis.pcall('SADD', KEYS[17], id)
                counts_deaths = true
            end
            if batch then
                counters.count(batch, is_deleted and 'deleted' or 'failed')
            end
            if is_deleted or record ~= '' then
                note_end(KEYS[23], ARGV[3], id, is_deleted and 'dropped' or 'failed')
            end
            if returned then
                redis.pcall('DEL', KEYS[18] .. id)
            end
            if (is_deleted or record ~= '') and claim ~= '' then
                release(KEYS[8] .. claim, id)
            end
            moved[#moved + 1] = not is_deleted and record ~= '' and deaths .. ' ' .. stalls .. ' ' .. field or ''
        end
    elseif job then
        spoilt[#spoilt + 1] = KEYS[3] .. ' ' .. field
    end
end
if counts_deaths then
    redis.pcall('PEXPIRE', KEYS[17], ARGV[6])
end
return { moved, spoilt, dropped, counters.count_over() }
