-- Removes a member from a room.
-- KEYS: members, held. ARGV: room, id.
redis.call('HDEL', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
return redis.call('HDEL', KEYS[1], ARGV[2])
