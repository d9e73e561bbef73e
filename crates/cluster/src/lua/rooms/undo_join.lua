-- Undoes a join whose outcome is unknown: raises the floor of its generation to its number, so that it is refused if it
-- arrives later, and deletes the membership, unless a later one of the same connection has replaced it.
-- KEYS: members, memberships, floor, unused key. ARGV: room, id, the part of the member's JSON with the time of the join,
-- number of the join, ttl of the floor in ms.
redis.call('DEL', KEYS[#KEYS]) -- a full Redis refuses a script whose first write may need memory
local floor = tonumber(redis.call('GET', KEYS[3]) or 0) or 0
redis.call('SET', KEYS[3], string.format('%.0f', math.max(floor, ARGV[4])), 'PX', ARGV[5])
local member = redis.call('HGET', KEYS[1], ARGV[2])
if not member or string.find(member, ARGV[3], 1, true) then
    redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
    redis.call('HDEL', KEYS[1], ARGV[2])
end
return 'undone'
