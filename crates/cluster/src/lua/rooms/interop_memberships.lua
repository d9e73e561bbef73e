-- What rooms say of a connection: its membership as it is written, or '' where it has none or the room is no more.
-- KEYS: rooms, then the members of each. ARGV: id, then the rooms.
local listed = {}
for n = 2, #KEYS do
    local member = redis.call('SISMEMBER', KEYS[1], ARGV[n]) == 1 and redis.call('HGET', KEYS[n], ARGV[1])
    listed[n - 1] = member or ''
end
return listed
