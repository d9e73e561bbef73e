-- Limits of queues in the cluster, for scripts that settle or fetch. `read_limits` is false where the call names none; it reads
-- them from a byte of `rules_text` on. A call that settles or fetches no job of such a queue need not do so.
-- Of each such queue, HELD has how many attempts each generation runs, and RATES until when its rate is paid: a number of µs, to
-- which each attempt adds the time from one to the next. The text has for each of them: plain successes among the settlements,
-- most that run or 0, most that begin together by the rate or 0, µs from one to the next, 1 if jobs of it take turns, name.
local read_limits = #rules_text >= rules_at and function(at)
    local rules, of, counts_attempts = {}, {}, false
    repeat
        local rule = { ended = 0, begun = 0 }
        rule.successes, rule.most, rule.burst, rule.interval, rule.takes_turns, rule.queue, at =
            struct.unpack('<I4I4I4dI1I1c0', rules_text, at)
        rule.takes_turns, counts_attempts = rule.takes_turns == 1, counts_attempts or rule.most > 0
        rules[#rules + 1] = rule
        of[rule.queue] = rule
    until at > #rules_text
    local limited = { of = of }

    -- How many attempts of its queue all generations run, and this one, as it was before this call. Nothing if the key is spoilt.
    local function held_of(rule)
        if rule.held == nil then
            local counts, held, own = redis.pcall('HGETALL', HELD .. rule.queue), 0, 0
            rule.held = false
            for n = 2, #counts, 2 do
                local count = tonumber(counts[n])
                if not count then
                    return false
                end
                held, own = held + count, counts[n - 1] == ARGV[1] and count or own
            end
            if not counts.err then
                rule.held, rule.own = held, own
            end
        end
        return rule.held, rule.own
    end

    -- Removes plain successes, those of each of these queues by a command of its own, which says how many were listed.
    function limited.remove(running, first, successes)
        local removed, left = 0, successes
        for n = 1, #rules do
            left = left - rules[n].successes
        end
        if left > 0 then
            removed = redis.call('HDEL', running, unpack(ARGV, first, first + left - 1))
            first = first + left
        end
        for n = 1, #rules do
            local rule = rules[n]
            if rule.successes > 0 then
                rule.ended = redis.call('HDEL', running, unpack(ARGV, first, first + rule.successes - 1))
                removed, first = removed + rule.ended, first + rule.successes
            end
        end
        return removed
    end

    -- A job of a queue has begun.
    function limited.begin(queue)
        local rule = of[queue]
        if rule then
            rule.begun = rule.begun + 1
        end
    end

    -- An attempt of a queue has left those that run.
    function limited.free(queue)
        local rule = of[queue]
        if rule then
            rule.ended = rule.ended + 1
        end
    end

    -- Counts the attempts of a generation anew, once a second: no key that was lost or set by others holds a queue up, or opens
    -- it, for longer. More than a thousand attempts, which take 1 ms a thousand, are counted as much less often; without the right to
    -- read their fields, the count stays what it was. The counts of generations that run nothing go.
    function limited.recount(running, us)
        if not counts_attempts then
            return
        end
        local thousands = math.ceil(redis.call('HLEN', running) / 1000)
        local fields = (thousands < 2 or math.floor(us / 1000000) % thousands == 0) and redis.pcall('HKEYS', running)
        local counts
        if fields and not fields.err then
            counts = {}
            for _, field in ipairs(fields) do
                local queue = string.match(field, '^%d+ (.+) %d+ %d+ %d+$')
                if queue then
                    counts[queue] = (counts[queue] or 0) + 1
                end
            end
        end
        for n = 1, #rules do
            local rule = rules[n]
            local held = HELD .. rule.queue
            if rule.most > 0 then
                local others = redis.pcall('HGETALL', held)
                for at = 1, #others, 2 do
                    if others[at] ~= ARGV[1] and redis.call('EXISTS', RUNNING_OF .. others[at]) == 0 then
                        redis.call('HDEL', held, others[at])
                    end
                end
            end
            if rule.most > 0 and counts then
                local own = (counts[rule.queue] or 0) + rule.ended -- as it was before this call
                if own > 0 then
                    redis.pcall('HSET', held, ARGV[1], string.format('%d', own))
                else
                    redis.pcall('HDEL', held, ARGV[1])
                end
            end
            if rule.most > 0 then
                redis.pcall('PEXPIRE', held, HELD_TTL_MS)
            end
        end
    end

    -- How many jobs of a queue may begin now: what is left of both limits. A spoilt key is named, and none may.
    function limited.room(rule, us, spoilt)
        local room = math.huge
        if rule.most > 0 then
            local held = held_of(rule)
            if not held then
                spoilt[#spoilt + 1] = HELD .. rule.queue
            end
            room = held and rule.most - held + rule.ended or 0
        end
        if rule.burst > 0 and room > 0 then
            local paid = redis.pcall('GET', RATES .. rule.queue)
            if type(paid) == 'table' then
                spoilt[#spoilt + 1] = RATES .. rule.queue
                room = 0
            else
                -- Not beyond now either: a clock that was set back would hold the queue up until its old time.
                rule.paid = math.min(math.max(tonumber(paid) or 0, us - rule.burst * rule.interval), us)
                local by_rate = math.floor((us - rule.paid) / rule.interval)
                rule.is_by_rate = by_rate < room
                room = math.min(room, by_rate)
            end
        end
        rule.room = math.max(room, 0)
        return rule.room
    end

    -- How many jobs of a queue wait for their turns, as far as that matters to a call that takes `most` of them at most: those of
    -- the keys that are next, and one of each other.
    function limited.waiting_in_turns(rule, most, spoilt)
        local turns = FAIR .. rule.queue
        local size = redis.pcall('ZCARD', turns)
        rule.turns = {}
        if type(size) ~= 'number' then
            spoilt[#spoilt + 1] = turns
            return 0
        elseif size == 0 or most <= 0 then
            return size
        end
        local next_keys, waiting = redis.call('ZRANGE', turns, 0, most - 1, 'WITHSCORES'), 0
        for n = 1, #next_keys, 2 do
            local key = next_keys[n]
            local list = turns .. ' ' .. key
            local length = redis.pcall('LLEN', list)
            if type(length) ~= 'number' then -- behind all others, so that it keeps none from their turns
                spoilt[#spoilt + 1] = list
                redis.call('ZADD', turns, '1e15', key)
            elseif length == 0 then
                redis.call('ZREM', turns, key)
            else
                local had = tonumber(next_keys[n + 1])
                rule.turns[#rule.turns + 1] = { key = key, list = list, length = length, had = had, takes = 0 }
                waiting = waiting + length
            end
        end
        -- Behind a key whose list was spoilt before there are such keys alone.
        local is_last = tonumber(next_keys[#next_keys]) >= 1e15
        return waiting + (is_last and 0 or math.max(size - #next_keys / 2, 0))
    end

    -- Takes jobs of a queue by turns, and returns how many: each is of the key that has had the fewest.
    function limited.take_turns(rule, n_queue, most, take)
        for _ = 1, most do
            local first
            for n = 1, #rule.turns do
                local turn = rule.turns[n]
                if turn.takes < turn.length and (not first or turn.had < first.had) then
                    first = turn
                end
            end
            if not first then
                break
            end
            first.takes, first.had = first.takes + 1, first.had + 1
        end
        local turns, taken = FAIR .. rule.queue, 0
        for n = 1, #rule.turns do
            local turn = rule.turns[n]
            if turn.takes > 0 then
                local count = take(turn.list, n_queue, true, turn.takes)
                turn.had, turn.length = turn.had - turn.takes + count, turn.length - count
                turn.takes, taken = 0, taken + count
                if turn.length == 0 then
                    redis.call('ZREM', turns, turn.key)
                elseif count > 0 then
                    redis.call('ZADD', turns, string.format('%.1f', turn.had), turn.key)
                end
            end
        end
        return taken
    end

    -- Notes what has begun and ended, and wakes nodes for room that this call has made and not filled. Returns for each queue in
    -- which jobs wait that a limit holds up its place, and in how many µs its rate lets the next one begin, '' if it does now.
    function limited.finish(us)
        local held_up
        for n = 1, #rules do
            local rule = rules[n]
            local queue, change = rule.queue, rule.begun - rule.ended
            local is_held_up, makes_room = rule.room and rule.room <= rule.begun, false
            if rule.most > 0 and change ~= 0 and held_of(rule) then
                makes_room = change < 0 and rule.held >= rule.most
                local own = rule.own + change
                if own > 0 then
                    redis.call('HSET', HELD .. queue, ARGV[1], string.format('%d', own))
                    if rule.held == 0 then -- from then on, each recount prolongs it
                        redis.call('PEXPIRE', HELD .. queue, HELD_TTL_MS)
                    end
                else
                    redis.call('HDEL', HELD .. queue, ARGV[1])
                end
            end
            if rule.paid and rule.begun > 0 then
                rule.paid = rule.paid + rule.begun * rule.interval
                local lasts = string.format('%.0f', rule.burst * rule.interval / 1000 + 1000)
                redis.pcall('SET', RATES .. queue, string.format('%.0f', rule.paid), 'PX', lasts)
            end
            if (is_held_up or makes_room)
                and redis.call('EXISTS', READY .. queue, AGAIN .. queue, SUSPECTS .. queue, FAIR .. queue) > 0 then
                if makes_room then
                    redis.pcall('PUBLISH', CHANNEL, queue)
                end
                if is_held_up then
                    local opens_in = rule.is_by_rate and math.max(rule.paid + rule.interval - us, 0)
                    held_up = held_up or {}
                    held_up[#held_up + 1] = string.format('%d', n - 1)
                    held_up[#held_up + 1] = opens_in and string.format('%.0f', opens_in) or ''
                end
            end
        end
        return held_up
    end
    return limited
end
