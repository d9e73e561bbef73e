-- Registers a node as a worker, for resque tools, and removes the workers of nodes of ours that are gone: neither a lease nor
-- a ping, which those of other clusters have.
-- KEYS: unused key, leases, workers; the starts of keys: worker, ping. ARGV: generation, name, queues, seconds for which
-- the ping lasts, its text before the time, its text after the time.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return 0
end
local now = redis.call('TIME')[1]
local worker = ARGV[2] .. ':' .. ARGV[3]
if redis.call('SADD', KEYS[3], worker) == 1 then
    redis.call('SET', KEYS[4] .. worker .. ':started', now)
end
redis.call('SET', KEYS[5] .. ARGV[2], ARGV[5] .. now .. ARGV[6], 'EX', ARGV[4])
for _, other in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local name, generation = string.match(other, '^([^:]*:(%w%w%w%w%w%w%w%w%w%w)):')
    local is_gone = generation and not redis.call('ZSCORE', KEYS[2], generation)
        and redis.call('EXISTS', KEYS[5] .. name) == 0
    if other ~= worker and (name == ARGV[2] or is_gone) then
        redis.call('SREM', KEYS[3], other)
        redis.call('DEL', KEYS[4] .. other, KEYS[4] .. other .. ':started')
    end
end
return 1
