-- Counts calls, each for all of its limits or, if one of them has no room, for none of them. The time of a limit is cut into
-- slices, a tenth of its window each; the current one counts with the ten before it. A key has the number of its newest slice, a
-- double, and the counts of this one and of the ten before it, 4 bytes each. Nothing is written for a call that is not counted.
-- KEYS: of each call, of each of its limits, the counts of its subject. ARGV: one string: of each call how many limits it has, 4
-- bytes, then of each the most calls, 4 bytes, and the length of a slice in microseconds, a double.
-- Returns one string, which its reader parses at a fraction of the cost of lists: of each call a byte, 1 if it was counted, 0 if
-- not; then of each limit, 8 bytes each, how many calls it counts, in how many microseconds it has room for one more (0: now),
-- and in how many it counts none. A call with a key of another kind, which says nothing about the others, has the byte 2 alone.
-- Texts of numbers, which Redis's Lua reads and writes digit by digit, would be most of the time of a call. What may be beyond 32
-- bits is packed as a double: an integer has no more where Redis is a 32-bit build.
local COUNTS, BYTES = '>dI4I4I4I4I4I4I4I4I4I4I4', 52
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- The counts of a key from its newest slice back. That is the current one, or one of the ten after it, which a clock that was ahead
-- has counted: what is further away than ten slices is forgotten.
local function counts_of(stored, current)
    local counts = #stored == BYTES and { struct.unpack(COUNTS, stored) }
    if counts and counts[1] == current then
        return counts
    end
    local ahead = counts and counts[1] - current
    if not (counts and ahead >= -10 and ahead <= 20) then
        return { current, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
    end
    local newest = math.min(math.max(counts[1], current), current + 10)
    local later = newest - counts[1]
    local from, to, step = 12, 2, -1
    if later < 0 then
        from, to, step = 2, 12, 1
    end
    counts[13] = nil -- the position behind the counts, which `unpack` returns too
    for place = from, to, step do
        counts[place] = place - later >= 2 and counts[place - later] or 0
    end
    counts[1] = newest
    return counts
end

-- In how long a limit has room for one more, and in how long it counts none.
local function times(counts, used, most, slice)
    if used < most and counts[2] > 0 then
        return 0, math.max((counts[1] + 11) * slice - now, 0)
    end
    local retry, whole = 0, 0
    for place = 12, 2, -1 do
        if counts[place] > 0 then
            whole = (counts[1] + 13 - place) * slice - now
            if used >= most then
                retry, used = whole, used - counts[place]
            end
        end
    end
    return math.max(retry, 0), math.max(whole, 0)
end

local calls, at, key, packed = ARGV[1], 1, 0, {}
while at <= #calls do
    local limits, has_room, failure = {}, true, nil
    local count = struct.unpack('>I4', calls, at)
    for n = 1, count do
        local most, slice = struct.unpack('>I4d', calls, at + 12 * n - 8)
        local stored = redis.pcall('GET', KEYS[key + n])
        if type(stored) == 'table' then
            failure = stored.err
            break
        end
        local current = math.floor(now / slice)
        local counts = counts_of(stored or '', current)
        local used = counts[2] + counts[3] + counts[4] + counts[5] + counts[6] + counts[7] + counts[8] + counts[9] + counts[10]
            + counts[11] + counts[12]
        has_room = has_room and used < most
        limits[n] = { counts, used, most, slice, current }
    end
    if failure and not string.find(failure, 'WRONGTYPE', 1, true) then
        return { err = failure }
    end
    packed[#packed + 1] = failure and '\2' or has_room and '\1' or '\0'
    for n = 1, failure and 0 or #limits do
        local counts, used, most, slice, current = unpack(limits[n])
        if has_room then
            local place = 2 + counts[1] - current
            counts[place], used = counts[place] + 1, used + 1
            local lasts = string.format('%.0f', math.ceil(11 * slice / 1000))
            redis.call('SET', KEYS[key + n], struct.pack(COUNTS, unpack(counts, 1, 12)), 'PX', lasts)
        end
        packed[#packed + 1] = struct.pack('>I8I8I8', used, times(counts, used, most, slice))
    end
    key, at = key + count, at + 4 + 12 * count
end
return table.concat(packed)
