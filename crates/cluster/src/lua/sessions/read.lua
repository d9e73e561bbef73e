-- Reads a session, and lets it go on for longer if it has used so much of its idle time.
-- ARGV: …, id, idle time in ms or '', step in ms.
local id, idle = ARGV[4], ARGV[5]
local session = read(id)
if not session[1] then
    return false
end
if idle ~= '' and not session[6] then
    local key = SESSION .. id
    local left = session[8]
    if left < tonumber(idle) - tonumber(ARGV[6]) then
        local ttl = math.min(tonumber(idle), tonumber(session[4]) - now_ms())
        if ttl > left then
            redis.call('PEXPIRE', key, text(ttl))
            session[8] = ttl
        end
    end
end
return session
