-- Removes a failed job, and may let it run again. Returns 'taken', 'missing', `=` and the id of the job that has the claim, or
-- `!` and the key that is spoilt.
-- KEYS: unused key, failed, ids of the failed, queues, delayed, delayed jobs; the starts of keys: ready, again, suspects,
-- unique; marks of deletion. ARGV: record, id or '', channel, then if it is to run again: id, queue, text, due in ms or '', claim or '', its ms.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local place = redis.call('LPOS', KEYS[2], ARGV[1])
if not place then
    return 'missing'
end
if #ARGV > 3 then
    local id, queue, job, due, claim = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
    local holder = claim ~= '' and redis.call('GET', KEYS[10] .. claim)
    if holder then
        return '=' .. holder
    end
    local now = redis.call('TIME')
    local key
    if due and due > now[1] * 1000 + now[2] / 1000 then
        key = delay(KEYS[5], KEYS[6], id, id .. ':' .. now[1] .. now[2], ARGV[7], queue .. ' 0 0 0 ' .. job)
    else
        key = placer(KEYS[4], KEYS[7], KEYS[8], KEYS[9], ARGV[3])(queue, 0, 0, 0, job, false)
    end
    if key then
        return '!' .. key
    end
    redis.pcall('ZREM', KEYS[11], id)
    if claim ~= '' then
        redis.call('SET', KEYS[10] .. claim, id, 'PX', ARGV[9])
    end
end
if place == 0 then
    redis.call('LPOP', KEYS[2])
else
    redis.call('LREM', KEYS[2], 1, ARGV[1])
end
if ARGV[2] ~= '' then
    redis.pcall('ZREM', KEYS[3], ARGV[2])
end
return 'taken'
