-- Lists members of a node as it holds them. For each it returns an outcome and the incarnation of the room. One that is
-- listed as it should be costs no write. A room that is missing is created again with the incarnation that its members
-- hold, unless that one or a later one was closed; another incarnation without such evidence is taken over. A member that
-- is not listed although its node was reaped was removed by the reaper: it joins anew. The members of a room that another
-- node is closing are left alone, because its last message takes them out.
-- KEYS: leases, rooms, memberships, incarnations, floor, names, last incarnations of closed rooms, times at which they were
-- closed, closed rooms that are not forgotten, then the members of a room for each, unused key. ARGV: generation, number,
-- time of the reap in ms or 0, '1' if missing rooms are created again, µs in which a last message comes, the end of each
-- member's JSON, then for each: room, id, joinedAt, incarnation, the JSON before joinedAt.
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
local outcomes = {}
for n = 10, #KEYS - 1 do
    local at = 7 + (n - 10) * 5
    local room, id, joined, life, json = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local entry = room .. ' ' .. id
    local text = json .. joined .. ARGV[6]
    local member = redis.pcall('HGET', KEYS[n], id)
    local now = redis.call('SISMEMBER', KEYS[2], room) == 1 and redis.call('HGET', KEYS[4], room)
    local outcome
    if type(member) == 'table' then
        outcome = 'unreadable'
    elseif now == life and member == text and redis.call('HGET', KEYS[3], entry) == joined then
        outcome = 'kept'
    else
        local closed = redis.call('HGET', KEYS[7], room)
        local is_closed = closed and tonumber(closed) >= tonumber(life)
        local exists = now or redis.call('SISMEMBER', KEYS[2], room) == 1
        local of = member and string.match(member, '"generation":"(%w+)"')
        if now ~= life and is_closed or not exists and ARGV[4] ~= '1' then
            outcome = is_closing(room) and 'closing' or 'destroyed'
        elseif member and of ~= ARGV[1]
            and (not of or redis.call('HGET', KEYS[6], of) ~= ARGV[1] and redis.call('ZSCORE', KEYS[1], of)) then
            outcome = 'elsewhere'
        else
            if not now then
                now = life
                redis.call('HSET', KEYS[4], room, life)
                redis.call('SADD', KEYS[2], room)
            end
            outcome = 'listed'
            if reaped > 0 then
                local later = string.format('%.0f', math.max(joined, reaped))
                -- The second is the answer to a script whose first answer was lost.
                if not member or member == json .. later .. ARGV[6] then
                    outcome, joined, text = 'rejoined', later, json .. later .. ARGV[6]
                end
            end
            redis.call('HSET', KEYS[3], entry, joined)
            redis.call('HSET', KEYS[n], id, text)
        end
    end
    outcomes[#outcomes + 1] = outcome .. ' ' .. (now or '0')
end
return outcomes
