-- Ends sessions, and announces that. A full Redis refuses a script whose first write may need memory.
-- KEYS: unused key. ARGV: …, id of one that ends, or '', user all of whose sessions end, or '', id of one that is kept, and
-- whose user's other sessions end, or ''.
redis.call('DEL', KEYS[1])
local ended = {}
if ARGV[4] ~= '' then
    finish(ARGV[4], ended)
    return { ended, 0 }
end
local user, kept = ARGV[5], ''
if ARGV[6] ~= '' then
    kept = newest(ARGV[6])
    user = redis.call('HGET', SESSION .. kept, 'u')
    if not user then
        return { false, 0 }
    end
end
if user == '' then
    return { ended, 0 }
end
local left, expired = listed(user)
for _, id in ipairs(left) do
    if id ~= kept then
        local of_one = {}
        finish(id, of_one)
        for _, gone in ipairs(of_one) do
            ended[#ended + 1] = gone
        end
    end
end
return { ended, expired }
