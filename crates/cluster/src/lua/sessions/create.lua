-- Stores a session under a new id.
-- ARGV: …, id, value, user or '', 1 or 0 for whether its cookie outlasts the browser, idle time in ms, absolute time in ms.
local now = now_ms()
local session = { value = ARGV[5], user = ARGV[6], remembered = ARGV[7], created = now, ends = now + ARGV[9] }
local ended, expired = store(ARGV[4], session, math.min(tonumber(ARGV[8]), tonumber(ARGV[9])))
return { text(session.ends), ended, expired }
