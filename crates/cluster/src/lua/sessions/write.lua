-- Replaces the value of a session that exists.
-- ARGV: …, id, value, version that it was made from or ''.
local id = ARGV[3]
local session = read(id)
if not session[1] then
    return { 'gone' }
end
if ARGV[5] ~= '' and ARGV[5] ~= session[2] then
    return { 'conflict', session }
end
local version = text(tonumber(session[2]) + 1)
redis.call('HSET', SESSION .. id, 'v', ARGV[4], 'n', version)
return { 'written', version }
