-- Removes memberships that are stored under a generation, each with its entry in the room, if that entry has the same
-- generation and time of joining. Joins and listings up to a number are refused from here on. Returns how many were there.
-- KEYS: memberships, floor, then the members of a room for each, unused key. ARGV: the text that marks members of the
-- generation, number or '0', ttl of the floor in ms, then for each: room, id, joinedAt.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
local floor = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if tonumber(ARGV[2]) > floor then
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
local removed = 0
for n = 3, #KEYS - 1 do
    local at = 4 + (n - 3) * 3
    local room, id, joined = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local entry = room .. ' ' .. id
    local is_there = redis.call('HGET', KEYS[1], entry) == joined
    if is_there then
        redis.call('HDEL', KEYS[1], entry)
    end
    local member = redis.pcall('HGET', KEYS[n], id) -- a corrupt room has no members
    if type(member) == 'string' and string.find(member, ARGV[1], 1, true)
        and string.find(member, '"joinedAt":' .. joined .. ',', 1, true) then
        redis.call('HDEL', KEYS[n], id)
        is_there = true
    end
    removed = removed + (is_there and 1 or 0)
end
return removed
