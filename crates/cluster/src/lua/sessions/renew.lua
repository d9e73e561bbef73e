-- Gives a session that exists a new id, and announces that; the value before stays under the old one for a while.
-- ARGV: …, old id, new id, 1 or 0 for whether there is a new value, value, user or '', version that it was made from or '',
-- 1 or 0 for whether its cookie outlasts the browser or '' as stored, idle time in ms, absolute time in ms or '' as stored,
-- ms for which the copy lasts.
local old_id, new_id = ARGV[4], ARGV[5]
if redis.call('HGET', SESSION .. new_id, 'p') == old_id then
    local renewed = read(new_id) -- by an earlier run, whose answer was lost
    return { 'renewed', renewed[4], {}, 0, renewed[5] }
end
local old = read(old_id)
if not old[1] then
    return { 'gone' }
end
if old[6] then
    return { 'frozen' }
end
if ARGV[9] ~= '' and ARGV[9] ~= old[2] then
    return { 'conflict', old }
end
local now = now_ms()
local session = {
    value = ARGV[6] == '1' and ARGV[7] or old[1],
    user = ARGV[6] == '1' and ARGV[8] or old[3],
    remembered = ARGV[10] ~= '' and ARGV[10] or old[5],
    created = ARGV[12] ~= '' and now or tonumber(old[7]),
    ends = ARGV[12] ~= '' and now + ARGV[12] or tonumber(old[4]),
}
local ttl = math.min(tonumber(ARGV[11]), session.ends - now)
if ttl < 1 then
    return { 'gone' }
end
-- First, since it is the one that a full Redis refuses.
redis.call('HSET', SESSION .. old_id, 'x', new_id)
if old[3] ~= '' then
    redis.call('ZREM', USER .. old[3], old_id)
end
local ended, expired = store(new_id, session, ttl)
redis.call('HSET', SESSION .. new_id, 'p', old_id)
if redis.call('PTTL', SESSION .. old_id) > tonumber(ARGV[13]) then
    redis.call('PEXPIRE', SESSION .. old_id, ARGV[13])
end
announce(old_id)
return { 'renewed', text(session.ends), ended, expired, session.remembered }
