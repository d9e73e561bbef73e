-- Publishes a room message to our nodes and to Actionhero nodes in one step, so that all receive one order. A script,
-- since a Redis that is full refuses a transaction. Returns the number of our nodes.
-- ARGV: channel of the room, envelope, channel of Actionhero nodes, their message.
local receivers = redis.call('PUBLISH', ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return receivers
