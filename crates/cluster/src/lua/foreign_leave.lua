-- Asks a foreign node to take its connection out of a room: once, and only while it is a member there, since the node
-- does not survive being asked for anything else.
-- KEYS: rooms, members, the mark that it was asked. ARGV: room, id, how long the mark stands, channel, message.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
    return 'no room'
end
local member = redis.call('HGET', KEYS[2], ARGV[2])
if not member or string.find(member, '"generation":', 1, true) then
    return 'no member'
end
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[3]) then
    return 'asked'
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 'asks'
