-- Shared by the scripts of sessions: each has the constants, and the functions that it names. A function calls none but those before
-- it; an empty line stands between two, and none in one.
--
-- A session is a hash: v value, n version, u user, a end whatever happens (ms), c sign-in (ms), r whether the cookie outlasts
-- the browser, p the session that it was renewed from, x the one that it was renewed to: then it is the copy of the value
-- before. Its ttl is the rest of its idle time. The sessions of a user are a sorted set by that end.
--
-- ARGV of all scripts begins: start of the keys of sessions, start of those of users, start of the channels of tags.
local SESSION, USER, TAG = ARGV[1], ARGV[2], ARGV[3]
local MOST_OF_USER, LONGEST_CHAIN = 100, 1000

local function now_ms()
    local now = redis.call('TIME')
    return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- Says that a session ended or has a new id, in the step that does it: a node that dies has done both or neither. The nodes
-- with sockets of it read it again, so they need not believe it. The text of a session's tag is the start of its id.
local function announce(id)
    redis.call('PUBLISH', TAG .. string.sub(id, 1, 32), 'session')
end

local function text(number)
    return string.format('%.0f', number)
end

-- The session that this one was renewed to, in the end.
local function newest(id)
    for _ = 1, LONGEST_CHAIN do
        local following = redis.call('HGET', SESSION .. id, 'x')
        if not following then
            break
        end
        id = following
    end
    return id
end

local function remove(id, ended)
    local user, previous = redis.call('HGET', SESSION .. id, 'u'), redis.call('HGET', SESSION .. id, 'p')
    if redis.call('DEL', SESSION .. id) == 1 then
        ended[#ended + 1] = id
    end
    if user and user ~= '' then
        redis.call('ZREM', USER .. user, id)
    end
    announce(id)
    return previous
end

-- Ends a session, and those that it was renewed to and from. An end of none is announced as well: the sockets of one that
-- expired need not wait for their look.
local function finish(id, ended)
    local at, was_met = newest(id), false
    for _ = 1, LONGEST_CHAIN do
        if not at then
            break
        end
        was_met = was_met or at == id
        at = remove(at, ended)
    end
    if not was_met then -- one that is gone does not know the copies that lead to it
        remove(id, ended)
    end
end

-- Takes the sessions that expired out of the list of a user, and returns those that are left, and how many were taken out.
local function listed(user)
    local left, expired = {}, 0
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', USER .. user, '-inf', '+inf')) do
        if redis.call('EXISTS', SESSION .. id) == 1 then
            left[#left + 1] = id
        else
            redis.call('ZREM', USER .. user, id)
            announce(id)
            expired = expired + 1
        end
    end
    return left, expired
end

-- Stores a session under a new id and lists it. Returns the sessions that were ended for it, and how many had expired.
local function store(id, session, ttl)
    redis.call('HSET', SESSION .. id, 'v', session.value, 'n', 1, 'u', session.user, 'a', text(session.ends),
        'c', text(session.created), 'r', session.remembered)
    redis.call('PEXPIRE', SESSION .. id, text(ttl))
    local ended, expired = {}, 0
    if session.user == '' then
        return ended, expired
    end
    local list = USER .. session.user
    redis.call('ZADD', list, text(session.ends), id)
    local all = redis.call('ZRANGEBYSCORE', list, '-inf', '+inf', 'WITHSCORES')
    if #all > 2 * MOST_OF_USER then
        local left
        left, expired = listed(session.user)
        if #left > MOST_OF_USER then
            finish(left[1] == id and left[2] or left[1], ended)
        end
    end
    redis.call('PEXPIRE', list, text(tonumber(all[#all]) - now_ms() + 1))
    return ended, expired
end

-- The fields of a session, and its ttl.
local function read(id)
    local session = redis.call('HMGET', SESSION .. id, 'v', 'n', 'u', 'a', 'r', 'x', 'c')
    session[8] = session[1] and redis.call('PTTL', SESSION .. id)
    return session
end
