-- Counts a call for all of its limits or, if one of them has no room, for none of them. The time of a limit is cut into ten
-- slices; the current one counts with the ten before it. A key has the counts of its slices, `number:count number:count`.
-- Nothing is written for a call that is not counted.
-- KEYS: of each limit, the counts of its subject. ARGV: of each limit, the most calls, and the length of a slice in
-- microseconds.
-- Returns 1 if the call was counted, else 0; then of each limit how many calls it counts, in how many microseconds it has room
-- for one more (0: now), and in how many it counts none.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limits, is_counted = {}, 1
for index, key in ipairs(KEYS) do
    local limit = {most = tonumber(ARGV[2 * index - 1]), slice = tonumber(ARGV[2 * index]), used = 0, counts = {}}
    limit.current = math.floor(now / limit.slice)
    for number, count in string.gmatch(redis.call('GET', key) or '', '(%d+):(%d+)') do
        number, count = tonumber(number), tonumber(count)
        -- Later slices than the current one were counted by a clock that was ahead.
        if math.abs(number - limit.current) <= 10 then
            table.insert(limit.counts, {number, count})
            limit.used = limit.used + count
        end
    end
    if limit.used >= limit.most then
        is_counted = 0
    end
    limits[index] = limit
end

local reply = {is_counted}
for index, limit in ipairs(limits) do
    local counts = limit.counts
    if is_counted == 1 then
        local own
        for _, count in ipairs(counts) do
            if count[1] == limit.current then
                own = count
            end
        end
        if not own then
            own = {limit.current, 0}
            table.insert(counts, own)
        end
        own[2] = own[2] + 1
        limit.used = limit.used + 1
        local parts = {}
        for position, count in ipairs(counts) do
            parts[position] = string.format('%.0f:%.0f', count[1], count[2])
        end
        redis.call('SET', KEYS[index], table.concat(parts, ' '), 'PX', math.ceil(11 * limit.slice / 1000))
    end
    table.sort(counts, function(one, other) return one[1] < other[1] end)
    local rest, retry, whole = limit.used, 0, 0
    for _, count in ipairs(counts) do
        local forgotten = (count[1] + 11) * limit.slice - now
        if rest >= limit.most then
            retry = forgotten
        end
        rest, whole = rest - count[2], forgotten
    end
    table.insert(reply, limit.used)
    table.insert(reply, math.max(retry, 0))
    table.insert(reply, math.max(whole, 0))
end
return reply
