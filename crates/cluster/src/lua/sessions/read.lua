-- Reads sessions, and lets those go on for longer that have used so much of their idle time.
-- ARGV: …, idle time in ms or 0, step in ms, then the ids.
-- Returns one string, which its reader parses at a fraction of the cost of lists: of each session a byte, 0 if there is none, 1
-- if there is, 2 if the key is of another kind, which says nothing about the others. After a 1: whether the cookie outlasts the
-- browser and whether it is a copy, a byte each; ttl, 8 bytes; the lengths of version, end, user and value, 1, 1, 1 and 4
-- bytes; these four, as they are stored: a number that is made here costs more than its command.
local NONE, OTHER = '\0', '\2'
local idle, step, packed = tonumber(ARGV[4]), tonumber(ARGV[5]), {}
for n = 6, #ARGV do
    local key, reply = SESSION .. ARGV[n], OTHER
    local session = redis.pcall('HMGET', key, 'v', 'n', 'u', 'a', 'r', 'x')
    if session.err then
        if not string.find(session.err, 'WRONGTYPE', 1, true) then
            return session
        end
    elseif not session[1] then
        reply = NONE
    else
        local value, version, user, ends, remembered, following = unpack(session)
        version, user, ends = version or '', user or '', ends or ''
        if #version <= 255 and #user <= 255 and #ends <= 255 then
            local left = redis.call('PTTL', key)
            if idle > 0 and not following and left < idle - step and string.find(ends, '^%d+$') then
                local ttl = math.min(idle, tonumber(ends) - now_ms())
                if ttl > left then
                    redis.call('PEXPIRE', key, text(ttl))
                    left = ttl
                end
            end
            reply = struct.pack('>BBBI8BBBI4', 1, remembered == '1' and 1 or 0, following and 1 or 0, math.max(left, 0), #version,
                #ends, #user, #value) .. version .. ends .. user .. value
        end
    end
    packed[n - 5] = reply
end
return table.concat(packed)
