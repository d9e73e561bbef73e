-- Publishes messages to rooms, in this order. A removal comes first, even if it removes nothing: a server that takes no writes
-- refuses it, and with it all messages. One that has become a replica would publish them to its own subscribers alone.
-- KEYS: a key that is never set. ARGV: the channel and the text of each message. Returns how many received each.
redis.call('DEL', KEYS[1])
local receivers = {}
for n = 1, #ARGV, 2 do
    receivers[#receivers + 1] = redis.call('PUBLISH', ARGV[n], ARGV[n + 1])
end
return receivers
