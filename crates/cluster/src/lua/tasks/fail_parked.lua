-- Moves parked jobs to the failed ones.
-- KEYS: unused key, parked classes, failed, ids of the failed, failures; the starts of keys: parked, unique; classes of failures
-- that no node attended to; the start of keys: their records. ARGV: most failed jobs kept, most such records of a class, then
-- for each: class, entry, id or '', claim or '', record.
-- Returns how many were moved, and how many records were dropped.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
redis.call('LLEN', KEYS[3])
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local moved, dropped = 0, 0
for n = 3, #ARGV, 5 do
    local class, entry, id, claim, record = unpack(ARGV, n, n + 4)
    local list = KEYS[6] .. class
    if redis.pcall('LREM', list, 1, entry) == 1 then
        fail(KEYS[3], KEYS[4], KEYS[5], tonumber(ARGV[1]), id, record, us)
        dropped = dropped + keep_unattended(KEYS[8], KEYS[9], class, tonumber(ARGV[2]), record)
        if claim ~= '' then
            release(KEYS[7] .. claim, id)
        end
        moved = moved + 1
    end
    if redis.call('EXISTS', list) == 0 then
        redis.pcall('SREM', KEYS[2], class)
    end
end
return { moved, dropped }
