-- Takes records of jobs that failed in no attempt, for a node that knows their classes.
-- KEYS: unused key, classes of such jobs; the start of keys: their records. ARGV: most records, most bytes, then the classes.
-- Returns the records, and the keys that are spoilt.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local records, spoilt, most, bytes = {}, {}, tonumber(ARGV[1]), tonumber(ARGV[2])
for n = 3, #ARGV do
    local list = KEYS[3] .. ARGV[n]
    while #records < most and bytes > 0 do
        local record = redis.pcall('LPOP', list)
        if type(record) ~= 'string' then
            if record then
                spoilt[#spoilt + 1] = list
            end
            redis.pcall('SREM', KEYS[2], ARGV[n])
            break
        end
        records[#records + 1] = record
        bytes = bytes - #record
    end
end
return { records, spoilt }
