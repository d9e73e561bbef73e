-- Reads the memberships of a connection in several rooms: the member's JSON, or '' if the connection is not a member or
-- the room does not exist.
-- KEYS: rooms, then the members of each. ARGV: id, then the rooms.
local listed = {}
for n = 2, #KEYS do
    local member = redis.call('SISMEMBER', KEYS[1], ARGV[n]) == 1 and redis.call('HGET', KEYS[n], ARGV[1])
    listed[n - 1] = member or ''
end
return listed
