-- Counts calls, each for all of its limits or, if one of them has no room, for none of them. The time of a limit is cut into ten
-- slices; the current one counts with the ten before it. A key has the counts of its slices, `number:count number:count`.
-- Nothing is written for a call that is not counted.
-- KEYS: of each call, of each of its limits, the counts of its subject. ARGV: of each call, how many limits it has, then of each
-- the most calls, and the length of a slice in microseconds.
-- Returns one string, which its reader parses at a fraction of the cost of lists: of each call a byte, 1 if it was counted, 0 if
-- not; then of each limit, 8 bytes each, how many calls it counts, in how many microseconds it has room for one more (0: now),
-- and in how many it counts none. A call with a key of another kind, which says nothing about the others, has the byte 2 alone.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- The limits of a call, and whether all have room; if a key cannot be read none, and the error.
local function read(first_key, count, arg)
    local limits, has_room = {}, true
    for index = 1, count do
        local stored = redis.pcall('GET', KEYS[first_key + index])
        if type(stored) == 'table' then
            return {}, false, stored.err
        end
        local limit = {most = tonumber(ARGV[arg + 2 * index - 1]), slice = tonumber(ARGV[arg + 2 * index])}
        limit.key, limit.used, limit.counts = KEYS[first_key + index], 0, {}
        limit.current = math.floor(now / limit.slice)
        for number, calls in string.gmatch(stored or '', '(%d+):(%d+)') do
            number, calls = tonumber(number), tonumber(calls)
            -- Later slices than the current one were counted by a clock that was ahead.
            if math.abs(number - limit.current) <= 10 then
                limit.counts[#limit.counts + 1] = {number, calls}
                limit.used = limit.used + calls
            end
        end
        has_room = has_room and limit.used < limit.most
        limits[index] = limit
    end
    return limits, has_room
end

local function add(limit)
    local own
    for _, count in ipairs(limit.counts) do
        if count[1] == limit.current then
            own = count
        end
    end
    if not own then
        own = {limit.current, 0}
        limit.counts[#limit.counts + 1] = own
    end
    own[2] = own[2] + 1
    limit.used = limit.used + 1
    local parts = {}
    for position, count in ipairs(limit.counts) do
        parts[position] = string.format('%.0f:%.0f', count[1], count[2])
    end
    redis.call('SET', limit.key, table.concat(parts, ' '), 'PX', math.ceil(11 * limit.slice / 1000))
end

-- In how long a limit has room, and in how long it counts none.
local function times(limit)
    table.sort(limit.counts, function(one, other) return one[1] < other[1] end)
    local rest, retry, whole = limit.used, 0, 0
    for _, count in ipairs(limit.counts) do
        local forgotten = (count[1] + 11) * limit.slice - now
        if rest >= limit.most then
            retry = forgotten
        end
        rest, whole = rest - count[2], forgotten
    end
    return math.max(retry, 0), math.max(whole, 0)
end

local packed, key, arg = {}, 0, 1
while arg <= #ARGV do
    local count = tonumber(ARGV[arg])
    local limits, has_room, failure = read(key, count, arg)
    if failure and not string.find(failure, 'WRONGTYPE', 1, true) then
        return {err = failure}
    end
    packed[#packed + 1] = string.char(failure and 2 or has_room and 1 or 0)
    for _, limit in ipairs(limits) do
        if has_room then
            add(limit)
        end
        packed[#packed + 1] = struct.pack('>I8I8I8', limit.used, times(limit))
    end
    key, arg = key + count, arg + 1 + 2 * count
end
return table.concat(packed)
