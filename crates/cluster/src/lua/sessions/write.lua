-- Replaces the value of a session that exists.
-- ARGV: …, id, value, version that it was made from or ''.
local id = ARGV[4]
local session = read(id)
if not session[1] then
    return { 'gone' }
end
if ARGV[6] ~= '' and ARGV[6] ~= session[2] then
    return { 'conflict', session }
end
local version = text(tonumber(session[2]) + 1)
redis.call('HSET', SESSION .. id, 'v', ARGV[5], 'n', version)
return { 'written', version }
