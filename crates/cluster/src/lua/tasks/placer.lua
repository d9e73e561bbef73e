-- Returns the function that puts a job into its queue and returns the key if that is spoilt. Fresh jobs are in resque's
-- list, as they came. Others have their counters before them: those that ran or were given back are in `again` (at the
-- head, marked by `!`, if given back), and those that may be what kills or freezes nodes in `suspects`. Jobs that take turns are
-- in the same form in a list for each of their keys, `<fair><queue> <key>`: `<fair><queue>` has the keys, by their turns. A queue
-- that was empty is published.
local function placer(queues, ready, again, suspects, channel, fair)
    local known, lists = {}, {}

    -- The key by which a job takes turns, `turn_of` in Rust: no script reads JSON.
    local function turn_of(job)
        if string.byte(job, -2) == 34 then
            local tail = string.sub(job, -500)
            local key = string.match(tail, ',"fair":"([%w:._-]+)"}$')
                or string.match(tail, ',"fair":"([%w:._-]+)","batch":"[^"]*"}$')
            return key and #key <= 64 and key
        end
    end

    -- The list of a job that takes turns, with all that it needs for that. Nothing where a key of these is spoilt: the job waits
    -- with those that take none.
    local function list_of(queue, key)
        local name = queue .. ' ' .. key
        if lists[name] == nil then
            lists[name] = false
            local turns = fair .. queue
            local keys = redis.pcall('ZCARD', turns)
            if type(keys) ~= 'number' then
                return
            end
            if keys >= 1000 and not redis.call('ZSCORE', turns, key) then
                key = '~' -- those of further keys share one
            end
            local list = turns .. ' ' .. key
            if type(redis.pcall('LLEN', list)) == 'number' then
                lists[name] = { key = list, turns = turns, turn = key }
            else
                redis.call('ZADD', turns, '1e15', key) -- so that who fetches names it
            end
        end
        return lists[name]
    end

    -- Gives a turn to the key of a list, unless it has one; returns whether no other key had any. It comes half a turn behind the
    -- first one: with the same number, a key that comes again and again could always be before those that stay.
    local function add_turn(list)
        if list.has_turn then
            return false
        end
        list.has_turn = true
        local first = tonumber(redis.call('ZRANGE', list.turns, 0, 0, 'WITHSCORES')[2])
        local is_first = not first or first >= 1e15 -- all others are spoilt
        local had = tonumber(redis.call('ZSCORE', list.turns, list.turn))
        if not had or had >= 1e15 then -- its list was spoilt, and is not any more
            redis.call('ZADD', list.turns, string.format('%.1f', (is_first and 0 or first) + 0.5), list.turn)
        end
        return is_first
    end

    return function(queue, attempts, deaths, stalls, job, is_given_back)
        local counters = attempts .. ' ' .. deaths .. ' ' .. stalls
        local key, entry, list
        if deaths + stalls + 1 >= 3 then
            key, entry = suspects .. queue, counters .. ' ' .. job
        else
            local turn = turn_of(job)
            -- A queue whose name has a blank is none of ours: its keys could be a list of another.
            list = turn and not string.find(queue, ' ', 1, true) and list_of(queue, turn)
            if list then
                key, entry = list.key, (is_given_back and '!' or '') .. counters .. ' ' .. job
            elseif counters == '0 0 0' then
                key, entry = ready .. queue, job
            else
                key, entry = again .. queue, (is_given_back and '!' or '') .. counters .. ' ' .. job
            end
        end
        local length = redis.pcall(is_given_back and 'LPUSH' or 'RPUSH', key, entry)
        if type(length) ~= 'number' then
            return key
        end
        if not known[queue] then
            known[queue] = true
            redis.pcall('SADD', queues, queue)
        end
        local was_empty = length == 1
        if list then
            was_empty = add_turn(list)
        end
        if was_empty then
            redis.pcall('PUBLISH', channel, queue)
        end
    end
end
