-- Lists the sessions of a user.
-- ARGV: …, user.
local left, expired = listed(ARGV[4])
local found = {}
for _, id in ipairs(left) do
    found[#found + 1] = { id, redis.call('HGET', SESSION .. id, 'c'), redis.call('HGET', SESSION .. id, 'a') }
end
return { found, expired }
