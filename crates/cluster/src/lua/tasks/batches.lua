-- Returns the functions by which the ends of members count. A batch is a hash with the numbers `total`, `done`, `failed` and
-- `deleted`, `sealed` once it is, `end` once it is over, and its completion as `id`, `queue` and `text`. Beside it is a bitmap of
-- the members that have ended, by their numbers: each counts once, and the last one enqueues the completion.
local function batch_counters(put, batches, ended, ready, due)
    local over = 0

    local function complete(batch, how)
        over = over + 1
        local text = batch.queue and redis.call('HGET', batch.key, 'text')
        redis.call('HSET', batch.key, 'end', how)
        redis.call('HDEL', batch.key, 'text')
        redis.call('PEXPIRE', batch.key, 604800000)
        redis.call('DEL', ended .. batch.id)
        redis.pcall('ZREM', due, batch.id)
        if text then
            put(batch.queue, 0, 0, 0, text, false)
        end
    end

    -- Reads a batch, and what its end needs. Returns it, or nothing if it is over, or forgotten; and the key that is spoilt.
    local function read(id)
        local key = batches .. id
        local values = redis.pcall('HMGET', key, 'end', 'sealed', 'queue', 'total', 'done', 'failed', 'deleted')
        if values.err then
            return nil, key
        end
        if values[1] or not values[4] then
            return nil
        end
        local batch = { id = id, key = key, is_sealed = values[2], queue = values[3], total = tonumber(values[4]),
            done = tonumber(values[5]), failed = tonumber(values[6]), deleted = tonumber(values[7]) }
        if not (batch.total and batch.done and batch.failed and batch.deleted) then
            return nil, key
        end
        if type(redis.pcall('GETBIT', ended .. id, 0)) ~= 'number' then
            return nil, ended .. id
        end
        if batch.queue and type(redis.pcall('LLEN', ready .. batch.queue)) ~= 'number' then
            return nil, ready .. batch.queue
        end
        return batch
    end

    -- Ends a batch if it is sealed and no member is left.
    local function finish(batch)
        if batch.is_sealed and batch.done + batch.failed + batch.deleted >= batch.total then
            complete(batch, 'finished')
        end
    end

    -- Reads the batch of a member, `<batch>#<number>`. Returns it, unless its end does not count; and the key that is spoilt.
    local function find(member)
        local id, number = string.match(member, '^(.+)#(%d+)$')
        if not id then
            return nil
        end
        local batch, key = read(id)
        number = tonumber(number)
        -- One beyond the members would make the bitmap as large as it says.
        if not batch or number >= batch.total or redis.call('GETBIT', ended .. id, number) == 1 then
            return nil, key
        end
        batch.number = number
        return batch
    end

    -- Counts the end of a member that was found: `done`, `failed` or `deleted`.
    local function count(batch, how)
        batch[how] = batch[how] + 1
        redis.call('HSET', batch.key, how, string.format('%.0f', batch[how]))
        redis.call('SETBIT', ended .. batch.id, string.format('%.0f', batch.number), 1)
        local ttl = redis.call('PTTL', batch.key)
        if ttl > 0 then
            redis.call('PEXPIRE', ended .. batch.id, string.format('%.0f', ttl))
        end
        finish(batch)
    end

    -- How many batches this call has ended.
    local function count_over()
        return over
    end

    return { read = read, find = find, count = count, finish = finish, complete = complete, count_over = count_over }
end
