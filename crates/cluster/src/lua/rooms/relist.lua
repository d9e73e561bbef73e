-- Lists members of a node as it holds them. For each it returns an outcome and the incarnation of the room. One that is
-- listed as it should be costs no write. A room that is missing is created again with the incarnation that its members
-- hold, unless that one or a later one was closed; another incarnation without such evidence is taken over. A member that
-- is not listed although its node was reaped was removed by the reaper: it joins anew. The members of a room that another
-- node is closing are left alone, because its last message takes them out.
-- KEYS: leases, rooms, memberships, incarnations, floor, names, last incarnations of closed rooms, times at which they were
-- closed, closed rooms that are not forgotten, then the members of each room, unused key. ARGV: generation, number, time of
-- the reap in ms or 0, '1' if missing rooms are created again, µs in which a last message comes, the end of each member's
-- JSON, the number of rooms, their names, then for each member: which room, id, joinedAt, incarnation, the JSON before
-- joinedAt.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return redis.error_reply('REAPED this node was found dead and is being listed anew')
end
if tonumber(ARGV[2]) <= (tonumber(redis.call('GET', KEYS[5]) or 0) or 0) then
    return redis.error_reply('LATE a later pass has begun')
end
local reaped = tonumber(ARGV[3])

local function is_closing(room)
    if redis.call('HEXISTS', KEYS[9], room) == 0 then
        return false
    end
    local closed_us = redis.call('ZSCORE', KEYS[8], room)
    local now = redis.call('TIME')
    return closed_us and now[1] * 1000000 + now[2] - closed_us < tonumber(ARGV[5])
end

-- Many members are in few rooms: each room is read once, and each key is read and written by one command.
local rooms, count = {}, tonumber(ARGV[7])
for n = 1, count do
    local name = ARGV[7 + n]
    local exists = redis.call('SISMEMBER', KEYS[2], name) == 1
    local now = exists and redis.call('HGET', KEYS[4], name)
    local closed = redis.call('HGET', KEYS[7], name)
    rooms[n] = { name = name, exists = exists, now = now, closed = closed, ids = {}, next = 1, listed = {} }
end
for at = 8 + count, #ARGV, 5 do
    local ids = rooms[tonumber(ARGV[at])].ids
    ids[#ids + 1] = ARGV[at + 1]
end
for n, room in ipairs(rooms) do
    local members = redis.pcall('HMGET', KEYS[9 + n], unpack(room.ids))
    room.members = not members.err and members
end

local outcomes, memberships = {}, {}
for at = 8 + count, #ARGV, 5 do
    local room, id, joined, life, json = rooms[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local member = room.members and room.members[room.next]
    room.next = room.next + 1
    local text = json .. joined .. ARGV[6]
    local outcome
    if not room.members then
        outcome = 'unreadable'
    elseif room.now == life and member == text and redis.call('HGET', KEYS[3], room.name .. ' ' .. id) == joined then
        outcome = 'kept'
    else
        local is_closed = room.closed and tonumber(room.closed) >= tonumber(life)
        local of = member and string.match(member, '"generation":"(%w+)"')
        if room.now ~= life and is_closed or not room.exists and ARGV[4] ~= '1' then
            outcome = is_closing(room.name) and 'closing' or 'destroyed'
        elseif member and of ~= ARGV[1]
            and (not of or redis.call('HGET', KEYS[6], of) ~= ARGV[1] and redis.call('ZSCORE', KEYS[1], of)) then
            outcome = 'elsewhere'
        else
            if not room.now then
                room.now, room.exists = life, true
                redis.call('HSET', KEYS[4], room.name, life)
                redis.call('SADD', KEYS[2], room.name)
            end
            outcome = 'listed'
            if reaped > 0 then
                local later = string.format('%.0f', math.max(joined, reaped))
                -- The second is the answer to a script whose first answer was lost.
                if not member or member == json .. later .. ARGV[6] then
                    outcome, joined, text = 'rejoined', later, json .. later .. ARGV[6]
                end
            end
            memberships[#memberships + 1] = room.name .. ' ' .. id
            memberships[#memberships + 1] = joined
            room.listed[#room.listed + 1] = id
            room.listed[#room.listed + 1] = text
        end
    end
    outcomes[#outcomes + 1] = outcome .. ' ' .. (room.now or '0')
end
if #memberships > 0 then
    redis.call('HSET', KEYS[3], unpack(memberships))
end
for n, room in ipairs(rooms) do
    if #room.listed > 0 then
        redis.call('HSET', KEYS[9 + n], unpack(room.listed))
    end
end
return outcomes
