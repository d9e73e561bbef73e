-- Searches lists for a text, and returns how many are searched, how many of the next one's entries are, from its end, the entries
-- that contain the text, each behind the place of its list, and the places of lists that are spoilt. A call is short: each list
-- costs as much as four short entries, and of entries with much text fewer are read.
-- KEYS: lists. ARGV: text, entries of the first list that are searched already, most entries, most bytes.
local text, from, left, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local found, spoilt = {}, {}
for n = 1, #KEYS do
    local step, count = 8, 8
    while count == step do
        if left <= 0 or bytes <= 0 then
            return { n - 1, from, found, spoilt }
        end
        -- From the end: a job that is fetched meanwhile shifts none out of sight.
        local entries = redis.pcall('LRANGE', KEYS[n], -from - step, -from - 1)
        if entries.err then
            spoilt[#spoilt + 1] = n - 1
            break
        end
        local longest = 0
        count = #entries
        for at = count, 1, -1 do
            local entry = entries[at]
            longest, bytes = math.max(longest, #entry), bytes - #entry
            if string.find(entry, text, 1, true) then
                found[#found + 1] = n - 1
                found[#found + 1] = entry
            end
        end
        from, left = from + count, left - 4 - count
        if count == step then
            step = longest <= 1024 and 64 or longest <= 4096 and 16 or longest <= 65536 and 4 or 1
            count = step
        end
    end
    from = 0
end
return { #KEYS, 0, found, spoilt }
