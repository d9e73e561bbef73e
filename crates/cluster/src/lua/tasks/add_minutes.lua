-- Adds to the minutes of tasks what a node has counted. A full Redis refuses it.
-- KEYS: minutes. ARGV: most tasks of a minute, ms for which a minute is kept, then for each: place of its minute among the
-- keys, task, processed, failed, times: `<class>:<count>` with blanks between.
-- Returns how many were left out: their minute has as many tasks as it may have, or is of another type.
local left_out = 0
for n = 3, #ARGV, 5 do
    local key, task, processed, failed, times = KEYS[tonumber(ARGV[n])], unpack(ARGV, n + 1, n + 4)
    local stored = redis.pcall('HGET', key, task)
    if type(stored) == 'table' or (not stored and redis.call('HLEN', key) >= tonumber(ARGV[1])) then
        left_out = left_out + 1
    else
        local before, fails, old = string.match(stored or '', '^(%d+) (%d+) ?(.*)$')
        local counts, classes = {}, {}
        for class, count in string.gmatch((old or '') .. ' ' .. times, '(%d+):(%d+)') do
            if not counts[class] then
                classes[#classes + 1] = class
            end
            counts[class] = (counts[class] or 0) + count
        end
        local parts = { string.format('%.0f %.0f', (before or 0) + processed, (fails or 0) + failed) }
        for _, class in ipairs(classes) do
            parts[#parts + 1] = class .. ':' .. string.format('%.0f', counts[class])
        end
        redis.call('HSET', key, task, table.concat(parts, ' '))
        if not stored then
            redis.call('PEXPIRE', key, ARGV[2])
        end
    end
end
return left_out
