-- Moves parked jobs to the failed ones.
-- KEYS: unused key, parked classes, failed, ids of the failed, failures; the starts of keys: parked, unique; classes of failures
-- that no node attended to; the start of keys: their records; queues; the starts of keys: ready, again, suspects, batches, members
-- of batches that ended; deadlines of batches; the starts of keys: reports, jobs that take turns. ARGV: most failed jobs kept,
-- most such records of a class, channel, then for each: class, entry, id or '', claim or '', its name as a member of a batch or '', record.
-- Returns how many were moved, how many records were dropped, the keys that are spoilt, and how many batches ended.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
redis.call('LLEN', KEYS[3])
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local put = placer(KEYS[10], KEYS[11], KEYS[12], KEYS[13], ARGV[3], KEYS[18])
local counters = batch_counters(put, KEYS[14], KEYS[15], KEYS[11], KEYS[16])
local moved, dropped, spoilt = 0, 0, {}
for n = 4, #ARGV, 6 do
    local class, entry, id, claim, member, record = unpack(ARGV, n, n + 5)
    local list = KEYS[6] .. class
    local batch, key = counters.find(member)
    spoilt[#spoilt + 1] = key
    if not key and redis.pcall('LREM', list, 1, entry) == 1 then
        fail(KEYS[3], KEYS[4], KEYS[5], tonumber(ARGV[1]), id, record, us)
        dropped = dropped + keep_unattended(KEYS[8], KEYS[9], class, tonumber(ARGV[2]), record)
        note_end(KEYS[17], ARGV[3], id, 'failed')
        if claim ~= '' then
            release(KEYS[7] .. claim, id)
        end
        if batch then
            counters.count(batch, 'failed')
        end
        moved = moved + 1
    end
    if redis.call('EXISTS', list) == 0 then
        redis.pcall('SREM', KEYS[2], class)
    end
end
return { moved, dropped, spoilt, counters.count_over() }
