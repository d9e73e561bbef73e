-- Announces a connection that publishes: stores its number under every name of the node, for nodes that subscribe later,
-- and publishes it to those that are subscribed. All of them refuse what a connection with a lower number still carries.
-- A removal comes first, even if it removes nothing: after it, a Redis that is full accepts the rest.
-- KEYS: links, a key that is never set. ARGV: channel of all nodes, envelope, number, then the names of the node.
redis.call('DEL', KEYS[2])
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
    redis.call('DEL', KEYS[1])
end
for n = 4, #ARGV do
    local known = tonumber(redis.call('HGET', KEYS[1], ARGV[n]) or 0)
    if not known or known < tonumber(ARGV[3]) then -- the hello of an earlier connection may arrive later
        redis.call('HSET', KEYS[1], ARGV[n], ARGV[3])
    end
end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
