-- Stores a session under a new id.
-- ARGV: …, id, value, user or '', 1 or 0 for whether its cookie outlasts the browser, idle time in ms, absolute time in ms.
local now = now_ms()
local session = { value = ARGV[4], user = ARGV[5], remembered = ARGV[6], created = now, ends = now + ARGV[8] }
local ended, expired = store(ARGV[3], session, math.min(tonumber(ARGV[7]), tonumber(ARGV[8])))
return { text(session.ends), ended, expired }
